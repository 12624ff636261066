"""A prediction from its body to its answer: admitted, decoded, queued, encoded. Nothing here knows
HTTP, granian or Litestar."""
