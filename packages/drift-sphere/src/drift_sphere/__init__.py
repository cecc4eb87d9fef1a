"""Events on the Earth: data, generator, metrics and figures on the sphere."""
