"""The spaces by name."""

from functools import lru_cache
from typing import Literal, get_args

from drift_synthetic.chart import CHARTS
from drift_synthetic.space import AmbientSpace, Space, same

SpaceName = Literal["plane", "sphere", "hyperboloid", "mesh"]

SPACES: dict[str, Space] = {space.name: space for space in (*CHARTS,)}
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
        "mesh", Surface(mesh), ("x", "y", "z"), "a point on the mesh", same,
        tolerance=MESH_TOLERANCE, unit=mesh.scale, centre=tuple(mesh.centre.tolist()),
    )  # fmt: skip
