"""Fields of sequences obey the laws of every drift field."""

from dataclasses import replace

import pytest
from drift_core import Batch, Laplace
from drift_core.lengthscale import parse_lengthscales
from drift_core.testing import check_field
from drift_simplex import CategoricalField, onehot_to_sphere, window_field


@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("scales", ["0.7", "0.4,1.2", "2:0.5"])
@pytest.mark.parametrize("direction", ["gradient", "displacement"])
@pytest.mark.parametrize("product", [False, True])
def test_fields_of_tokens_obey_the_laws(product, direction, scales, width, soft, strings):
    inner = CategoricalField(4, Laplace, parse_lengthscales(scales), direction, product)
    field = inner if width is None else window_field(inner, 5, width)
    a, b = strings(9, 5, 4, 1), strings(7, 5, 4, 2)
    there, back = (onehot_to_sphere(tokens, 4).double() for tokens in (a, b))
    batch = Batch(soft(6, 5, 4), a, back, progress=0.4)
    check_field(field, batch, swapped=replace(batch, data=b, model=there), equal=replace(batch, model=there))
    check_field(field, Batch(soft(6, 5, 4), a), antisymmetric=False)
