"""Generators of every domain leave Python: torch.export for any number of rows, and ONNX in onnxruntime."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from drift_promoter.model import PromoterGenerator
from drift_qm9.model import MoleculeGenerator
from drift_sphere.model import SphereGenerator
from drift_synthetic.model import SyntheticGenerator

LENGTH = 16
GENERATORS = {
    "sphere": lambda: SphereGenerator(codebook_size=8, width=16, blocks=1),
    "synthetic": lambda: SyntheticGenerator("hyperboloid", codebook_size=8, width=16, blocks=1),
    "qm9": lambda: MoleculeGenerator(
        length=LENGTH, width=16, blocks=1, heads=2, condition=16, mlp_width=16, compositions=(4, 2)
    ),
    "promoter": lambda: PromoterGenerator(
        length=LENGTH, width=16, blocks=1, codebook_size=8, codebook_span=8, codebook_clusters=2
    ),
}
HYPERBOLIC = {
    torch.ops.aten.sinh.default: lambda r: (r.exp() - (-r).exp()) / 2,
    torch.ops.aten.cosh.default: lambda r: (r.exp() + (-r).exp()) / 2,
}
"""What onnxruntime has in float32 alone, while the hyperboloid computes in float64."""


def inputs(module: torch.nn.Module, n: int) -> tuple[torch.Tensor, ...]:
    """Latents of n samples and, for conditional generators, their signals or compositions."""
    random = torch.Generator().manual_seed(n)
    latents = module.latent(n, random)
    if isinstance(module, PromoterGenerator):
        return latents, torch.rand(n, LENGTH, 2, generator=random)
    if isinstance(module, MoleculeGenerator):
        return latents, torch.randint(LENGTH - 2, (n, 2), generator=random)
    return (latents,)


def saved(folder: Path, module: torch.nn.Module) -> torch.nn.Module:
    """The generator from its folder, with weights as far from the initial ones as training moves them."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    module.save_pretrained(folder)
    return type(module).from_pretrained(folder).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter
@pytest.mark.parametrize("domain", GENERATORS)
def test_exported_generators_map_latents_as_they_did(domain: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = saved(tmp_path / "model", GENERATORS[domain]())
    few, more = inputs(module, 3), inputs(module, 7)
    rows = tuple({0: torch.export.Dim("n")} for _ in few)
    program = torch.export.export(module, few, dynamic_shapes=rows)
    with torch.no_grad():
        expected = module(*more)
        torch.testing.assert_close(program.module()(*more), expected, rtol=0, atol=0)
    if domain == "synthetic":
        program = program.run_decompositions(HYPERBOLIC)
    torch.onnx.export(program, f=tmp_path / "generator.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "generator.onnx")
    names = [argument.name for argument in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (part.numpy() for part in more), strict=True)))
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
