"""Kernels between the rows of a request and rows that were kept while training, and the features
that stand for kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model_export.errors import ExportError

if TYPE_CHECKING:
    from model_export.convert.block import Block
    from model_export.study.arrays import Matrix


def weighted_kernel(
    block: Block, path: str, step: Any, rows: Matrix, weights: Matrix, *, gamma: float | None = None
) -> Block:
    """[N, W], in float64: the kernel with each kept row, times the weights.

    Args:
        block: [N, width].
        path: of the step.
        step: fitted, with scikit-learn's `kernel`, `gamma`, `coef0` and `degree`.
        rows: float64[M, width], the kept ones.
        weights: float64[M, W].
        gamma: that was computed while training; otherwise the step's, or 1 / width.

    Raises:
        ExportError: the kernel is not known here.
    """
    wide, kernel = block.as_dtype("float64"), step.kernel
    if kernel == "linear":
        return wide.times(rows.T @ weights)
    if gamma is None:
        gamma = 1.0 / rows.shape[1] if step.gamma is None else float(step.gamma)
    if kernel in ("poly", "polynomial", "sigmoid"):
        # ONNX Runtime would join a product of a matrix and one with a number, which it then rounds
        # to float32.
        found = wide.times(rows.T * gamma) + float(1.0 if step.coef0 is None else step.coef0)
        if kernel == "sigmoid":
            return found.apply("Tanh").times(weights)
        degree = 3 if step.degree is None else step.degree
        return found.apply("Pow", float(degree)).times(weights)
    if kernel == "rbf":
        squares = (wide * wide).reduced("ReduceSum")
        apart = wide.times(rows.T) * -2.0 + squares + (rows * rows).sum(axis=1).reshape(1, -1)
        near: Block = apart.apply("Max", 0.0) * -gamma
        return near.apply("Exp").times(weights)
    raise ExportError(
        f"step {path!r} ({type(step).__name__}) has the kernel "
        f"{getattr(kernel, '__name__', kernel)!r}, which cannot be converted: train it with "
        "kernel='linear', 'poly', 'rbf' or 'sigmoid'"
    )


def write_nystroem(block: Block, path: str, step: Any) -> Block:
    """A Nystroem: the kernel with its components, normalized."""
    rows = np.asarray(step.components_, dtype=np.float64)
    weights = np.asarray(step.normalization_, dtype=np.float64).T
    return weighted_kernel(block, path, step, rows, weights)


def write_skewed(block: Block, path: str, step: Any) -> Block:
    """A SkewedChi2Sampler: as an RBFSampler, of logarithms."""
    return write_random_features((block + float(step.skewedness)).apply("Log"), path, step)


def write_additive(block: Block, path: str, step: Any) -> Block:
    """An AdditiveChi2Sampler: cosines and sines of each column's logarithm, and 0 for 0."""
    del path
    zero = block.test("Equal", 0.0)
    positive = block.where(zero, 1.0)
    distance = step.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[step.sample_steps]
    angle, size = positive.apply("Log") * distance, (positive * distance).apply("Sqrt")
    parts = [size]
    for k in range(1, step.sample_steps):
        factor = size * float(np.sqrt(2.0 / np.cosh(np.pi * k * distance)))
        parts += [factor * (angle * float(k)).apply(wave) for wave in ("Cos", "Sin")]
    return block.joined([part.where(zero, 0.0) for part in parts])


def write_count_sketch(block: Block, path: str, step: Any) -> Block:
    """A PolynomialCountSketch: the product of Fourier transforms, each of a sum of columns, and its
    inverse."""
    del path
    scaled = block * float(np.sqrt(step.gamma))
    if step.coef0 != 0:
        scaled = block.joined([scaled, block.repeated(np.sqrt([step.coef0]))])
    for power, (places, signs) in enumerate(zip(step.indexHash_, step.bitHash_, strict=True)):
        sums = np.zeros((scaled.width, step.n_components))
        sums[np.arange(scaled.width), places] = signs
        waves = np.fft.rfft(sums)
        real, imaginary = scaled.times(waves.real), scaled.times(waves.imag)
        if power == 0:
            product = real, imaginary
            continue
        product = (
            product[0] * real - product[1] * imaginary,
            product[0] * imaginary + product[1] * real,
        )
    each = np.eye(step.n_components // 2 + 1)
    back = [np.fft.irfft(unit * each, step.n_components) for unit in (1.0, 1.0j)]
    sketch: Block = product[0].times(back[0]) + product[1].times(back[1])
    return sketch


def write_random_features(block: Block, path: str, step: Any) -> Block:
    """An RBFSampler: cosines of random projections."""
    del path
    projected = block.times(np.asarray(step.random_weights_, dtype=np.float64))
    shifted = projected + np.asarray(step.random_offset_, dtype=np.float64).reshape(1, -1)
    cosines: Block = shifted.apply("Cos") * float(np.sqrt(2.0 / step.n_components))
    return cosines
