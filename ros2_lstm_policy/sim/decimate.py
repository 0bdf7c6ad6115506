"""
Thin the visual meshes of a compiled MuJoCo model, in place, for faster software rendering.

LIBERO's scenes have 300,000 to 400,000 faces, nearly all in object scans seen from a metre away.
Vertex clustering (Rossignac and Borrel, 1993) on a grid; collision geometry is never touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MIN_FACES = 800
LARGEST_EXTENT_M = 0.6


def thin_visual_meshes(model: Any, cells: int) -> tuple[int, int]:
    """
    Merge mesh vertices that share a cell of a grid.

    :param model: `mujoco.MjModel`; changed. Call it before a rendering context is made from it.
    :param cells: grid cells along a mesh's longest side; fewer is coarser.
    :return: faces of the visual meshes before and after.
    """
    before = after = 0
    for mesh in sorted(_visual_meshes(model)):
        faces = int(model.mesh_facenum[mesh])
        before += faces
        if faces >= MIN_FACES:
            _thin(model, mesh, cells)
        after += int(model.mesh_facenum[mesh])
    return before, after


def _visual_meshes(model: Any) -> set[int]:
    import mujoco
    visual: set[int] = set()
    solid: set[int] = set()
    for geom in range(model.ngeom):
        if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        collides = model.geom_contype[geom] or model.geom_conaffinity[geom]
        (solid if collides else visual).add(int(model.geom_dataid[geom]))
    return visual - solid


def _thin(model: Any, mesh: int, cells: int) -> None:
    vertex_start, vertex_count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    face_start, face_count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    vertices = model.mesh_vert[vertex_start:vertex_start + vertex_count]
    extent = float(np.ptp(vertices, axis=0).max())
    if extent > LARGEST_EXTENT_M:  # furniture: few faces, large on the screen
        return
    grid = np.floor((vertices - vertices.min(0)) / (extent + 1e-9) * cells).astype(np.int64)
    key = (grid[:, 0] * (cells + 1) + grid[:, 1]) * (cells + 1) + grid[:, 2]
    _, first, cell_of = np.unique(key, return_index=True, return_inverse=True)
    faces = first[cell_of.reshape(-1)][model.mesh_face[face_start:face_start + face_count]]
    kept = _distinct_faces(faces)
    rows = slice(face_start, face_start + face_count)
    for table, values in ((model.mesh_face, faces),
                          (model.mesh_facenormal, model.mesh_facenormal[rows]),
                          (model.mesh_facetexcoord, model.mesh_facetexcoord[rows])):
        table[face_start:face_start + len(kept)] = values[kept].copy()
    model.mesh_facenum[mesh] = len(kept)


def _distinct_faces(faces: np.ndarray) -> np.ndarray:
    """Return the indices of faces that still have three corners, each triangle once."""
    a, b, c = faces.T
    whole = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, first = np.unique(np.sort(faces[whole], axis=1), axis=0, return_index=True)
    return whole[np.sort(first)]
