"""Predicts how long a batch takes, from the batches that were run."""


class Cost:
    """Predicts a batch's seconds as a + b·rows, by regression over a window that forgets
    exponentially.

    O(1) per batch: five decaying sums. The slope b is kept while only one batch size is seen, such
    as single rows for an hour. Until a second size was seen, the cost per row of the first is used.
    """

    __slots__ = ("_n", "_nn", "_nt", "_slope", "_t", "_w", "row_seconds")
    DECAY = 0.98

    def __init__(self) -> None:
        self._w = self._n = self._t = self._nn = self._nt = 0.0
        self._slope: float | None = None
        self.row_seconds = 0.0
        """Seconds per row at the batch sizes seen lately; 0 before anything is known. Single rows
        take longer than those of a full batch."""

    def learn(self, rows: int, seconds: float) -> None:
        """Add one measured batch."""
        keep = self.DECAY
        self._w = self._w * keep + 1.0
        self._n = self._n * keep + rows
        self._t = self._t * keep + seconds
        self._nn = self._nn * keep + rows * rows
        self._nt = self._nt * keep + rows * seconds
        self.row_seconds = self._t / self._n

    def predict(self, rows: int) -> float:
        """Seconds that a batch of `rows` rows will take; 0 before anything is known."""
        if not self._w:
            return 0.0
        mean_rows, mean_seconds = self._n / self._w, self._t / self._w
        variance = self._nn / self._w - mean_rows * mean_rows
        if variance >= 0.5:
            self._slope = max(0.0, (self._nt / self._w - mean_rows * mean_seconds) / variance)
        elif self._slope is None:
            return mean_seconds * max(1.0, rows / mean_rows)
        return max(0.0, mean_seconds + self._slope * (rows - mean_rows))
