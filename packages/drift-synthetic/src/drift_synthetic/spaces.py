"""The spaces by name."""

from functools import lru_cache
from typing import Literal, get_args

from drift_core import SO3, Euclidean, Product, Sphere
from jaxtyping import Float
from torch import Tensor

from drift_synthetic.chart import CHARTS
from drift_synthetic.space import AmbientSpace, Space

SpaceName = Literal["plane", "sphere", "hyperboloid", "torus", "so3", "product", "mesh"]


def matrices(x: Float[Tensor, "n 4"]) -> Float[Tensor, "n 9"]:
    """Entries of rotation matrices."""
    return SO3.to_matrix(x).flatten(1)


ROTATIONS = AmbientSpace("so3", SO3(), ("w", "x", "y", "z"), "a unit quaternion", "SO(3)", matrices)
PRODUCT = AmbientSpace(
    "product", Product((Sphere(), 3), (Euclidean(), 2)), ("x", "y", "z", "u", "v"),
    "a unit vector x,y,z and two numbers", "S² × R²",
)  # fmt: skip

SPACES: dict[str, Space] = {space.name: space for space in (*CHARTS, ROTATIONS, PRODUCT)}
"""The spaces by name; that of a mesh depends on its file (`find_space`)."""

MESH_TOLERANCE = 0.02
"""Distance of points of a file from a mesh, whose area is 4 pi, at which they still count as on it."""


def find_space(name: str, mesh: str | None = None) -> Space:
    """Space by its name; `mesh` is the file of the surface for the name "mesh", None the default surface.

    Raises:
        ValueError: an unknown name, a mesh for another space, or a mesh that is not a closed surface.
        FileNotFoundError: there is no such file.
    """
    if name not in get_args(SpaceName):
        raise ValueError(f"space must be one of {', '.join(get_args(SpaceName))}; got {name!r}")
    if name == "mesh":
        return mesh_space(mesh)
    if mesh is not None:
        raise ValueError(f"`mesh` is for `space` mesh; got {name}")
    return SPACES[name]


@lru_cache(maxsize=8)
def mesh_space(path: str | None) -> AmbientSpace:
    """The surface of a mesh file, or the trefoil; raises as `read_mesh`."""
    from drift_synthetic.mesh import read_mesh, trefoil
    from drift_synthetic.surface import Surface

    mesh = trefoil() if path is None else read_mesh(path)
    return AmbientSpace(
        "mesh", Surface(mesh), ("x", "y", "z"), "a point on the mesh", "the mesh",
        tolerance=MESH_TOLERANCE, unit=mesh.scale, centre=tuple(mesh.centre.tolist()),
    )  # fmt: skip
