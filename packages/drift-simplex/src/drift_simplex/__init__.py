"""Fisher-Rao geometry of the simplex for categorical data."""
