"""A prediction from its body to its answer: admit, decode, queue, encode. Nothing here knows HTTP,
granian or Litestar."""
