"""What the study measures, from tensors to plain numbers.

Images are (N, 1, 28, 28) with pixels in [0, 1]; for others TypeError or ValueError says what is allowed.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

# scikit-learn, a second to load, is imported where it is needed.


@torch.no_grad()
def infer(module: nn.Module, inputs: Tensor) -> Tensor:
    """module(inputs) in batches of 500, without gradients; it is left in eval mode. (N, ...) -> (N, ...)."""
    module.eval()  # or batch norm would mix the images of a batch, and remember them
    return torch.cat([module(batch) for batch in inputs.split(500)])


def _check_images(*batches: Tensor) -> None:
    for images in batches:
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = getattr(images, "dtype", type(images).__name__)
            raise TypeError(f"images are {kind}: allowed are tensors of floating-point numbers from 0 to 1")
        if images.shape[1:] != (1, 28, 28) or len(images) == 0:
            raise ValueError(f"images of shape {tuple(images.shape)}: allowed is (N, 1, 28, 28), N from 1")
        low, high = images.aminmax()
        if not (low > -1e-6 and high < 1 + 1e-6):  # room for rounding; false for NaN as well
            raise ValueError(f"pixels from {low:g} to {high:g}: allowed is 0 to 1 (divide bytes by 255)")


def mse(x_hat: Tensor, x: Tensor) -> float:
    """Mean squared error per pixel over all N images. x_hat, x: (N, 1, 28, 28) in [0, 1]."""
    _check_images(x_hat, x)
    if x_hat.shape != x.shape:
        raise ValueError(f"shapes {tuple(x_hat.shape)} and {tuple(x.shape)}: allowed are equal ones")
    return (x_hat - x).square().mean(dtype=torch.float64).item()


def reconstruction_mse(autoencoder: nn.Module, images: Tensor) -> float:
    """`mse` between images and their reconstructions. images: (N, 1, 28, 28) in [0, 1]."""
    _check_images(images)  # before a network is shown them
    return mse(infer(autoencoder, images), images)


def pca(images: Tensor, latent_dim: int) -> Any:
    """scikit-learn's PCA of images (N, 1, 28, 28). Raises ValueError for a wrong size."""
    _check_images(images)
    from sklearn.decomposition import PCA

    return PCA(latent_dim, svd_solver="covariance_eigh").fit(images.flatten(1).numpy())


class PrincipalComponents(nn.Module):
    """A linear encoder: (N, 1, 28, 28) -> (N, latent_dim), the first principal components of `train`."""

    def __init__(self, train: Tensor, latent_dim: int):
        super().__init__()
        self.axes = pca(train, latent_dim)

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.axes.transform(images.flatten(1).numpy()))


def pca_errors(train: Tensor, test: Tensor, latent_dims: Sequence[int]) -> dict[int, float]:
    """Test `mse` of PCA, the best linear code, for each size d; d = 0 is the mean image.

    train, test: (N, 1, 28, 28) in [0, 1]; latent_dims: at least one size above 0 among them.
    """
    _check_images(test)
    if not latent_dims or min(latent_dims) < 0:
        raise ValueError(f"latent_dims={latent_dims}: allowed is a list of sizes from 0")
    axes = pca(train, max(latent_dims))
    centred = test.flatten(1).numpy() - axes.mean_
    codes = centred @ axes.components_.T
    # Orthonormal axes: the squared error of a code of d is the total minus the first d squares (Pythagoras).
    whole, parts = (centred**2).mean(dtype=np.float64), (codes**2).mean(0, dtype=np.float64) / test[0].numel()
    return {d: float(whole - parts[:d].sum()) for d in latent_dims}


def correlations(z: ArrayLike) -> np.ndarray:
    """Pearson correlations between the live coordinates of codes: (N, d) -> (live, live), in [-1, 1].

    A dead one's standard deviation is at most a millionth of its largest magnitude: what float32 leaves of a
    constant. Raises ValueError for fewer than two images or live coordinates, and for codes not finite.
    """
    from sklearn.utils import check_array

    codes = check_array(z, dtype=np.float64, ensure_min_samples=2, ensure_min_features=2)
    live = codes.std(0) > 1e-6 * np.abs(codes).max(0)
    if live.sum() < 2:
        raise ValueError(f"{live.sum()} live coordinates: a correlation needs at least 2")
    return np.corrcoef(codes[:, live], rowvar=False)


def correlation_summary(z: ArrayLike) -> dict[str, float]:
    """Single numbers for the redundancy of codes z: (N, d), over live coordinates; `dead` counts the others.

    mean_abs_r, rms_r: of the d(d-1)/2 pairs, 0 for independent coordinates, 1 for copies.
    effective_rank_fraction: participation ratio of the eigenvalues of R over d; 1 for uncorrelated
    coordinates, 1/d for copies of one (Gao et al., 2017). total_correlation_per_dim: -½ ln det R / d in
    nats, the redundancy of Gaussian codes with this R; infinite for copies (Watanabe, 1960).
    Raises ValueError as `correlations` does.
    """
    r = correlations(z)
    d = len(r)
    pairs = r[np.triu_indices(d, 1)]
    eigenvalues = np.linalg.eigvalsh(r)
    copies = eigenvalues.min() < 1e-12  # a vanishing eigenvalue is an exact copy
    return {
        "mean_abs_r": float(np.abs(pairs).mean()),
        "rms_r": float(np.sqrt((pairs**2).mean())),
        "effective_rank_fraction": participation_ratio(eigenvalues) / d,
        "total_correlation_per_dim": math.inf if copies else float(-0.5 * np.log(eigenvalues).sum() / d),
        "dead": np.shape(z)[1] - d,
    }


def participation_ratio(eigenvalues: ArrayLike) -> float:
    """(Σλ)² / Σλ², from 1 to d: the number of directions that share the variance (Gao et al., 2017)."""
    values = np.asarray(eigenvalues)
    return float(values.sum() ** 2 / (values**2).sum())


def mean_metric(decoder: nn.Module, z: Tensor) -> Tensor:
    """G, the mean over codes z (N, d) of JᵀJ, J (784, d) being the decoder's Jacobian at z. (d, d), float64.

    vᵀGv is the squared change of the image, summed over pixels, for a small step v, per squared length.
    """
    decoder.eval()  # batch norm would mix the codes
    d = z.shape[1]
    metric = torch.zeros(d, d, dtype=torch.float64)
    for codes in z.split(max(1, 256 // d)):  # all directions at once: 15 times faster than torch's jacfwd
        at, steps = codes.repeat_interleave(d, 0), torch.eye(d).repeat(len(codes), 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch about itself, once
            slopes = torch.func.jvp(lambda code: decoder(code).flatten(1), (at,), (steps,))[1].detach()
        jacobian = slopes.unflatten(0, (len(codes), d))  # (codes, d, 784)
        metric += (jacobian @ jacobian.mT).double().sum(0)
    return metric / len(z)


def image_variances(z: Tensor, metric: Tensor) -> Tensor:
    """Eigenvalues of ΣG, falling: the variance that each direction of the code has in the image.

    z: codes (N, d) with covariance Σ; metric: G (d, d). Returns (d,). With code Az the product is
    AΣAᵀA⁻ᵀGA⁻¹ = AΣGA⁻¹, a similar matrix, so no invertible linear A changes the eigenvalues.
    """
    root = torch.linalg.cholesky(torch.cov(z.double().T))
    return torch.linalg.eigvalsh(root.T @ metric @ root).flip(0)


def chance_level(n: int, d: int) -> dict[str, float]:
    """What `correlation_summary` gives on average for n images of d independent Gaussian coordinates.

    Closed forms to first order in 1/n: r is about normal with variance 1/(n-1) (Fisher, 1915). n, d: from 2.
    """
    variance = 1 / (n - 1)
    return {
        "mean_abs_r": math.sqrt(2 * variance / math.pi),
        "rms_r": math.sqrt(variance),
        "effective_rank_fraction": 1 / (1 + (d - 1) * variance),
        "total_correlation_per_dim": (d - 1) * variance / 4,
    }


def interpolate(z1: Tensor, z2: Tensor, alphas: Tensor) -> Tensor:
    """α·z1 + (1-α)·z2, so α = 1 gives the first. z1, z2: (N, ...); alphas: (A,). Returns (A, N, ...).

    Raises ValueError for unequal shapes, and for an α outside [0, 1].
    """
    if z1.shape != z2.shape:
        raise ValueError(f"shapes {tuple(z1.shape)} and {tuple(z2.shape)}: allowed are equal ones")
    alphas = torch.as_tensor(alphas, dtype=z1.dtype, device=z1.device)
    if not ((alphas >= 0) & (alphas <= 1)).all():
        raise ValueError(f"alphas {alphas.tolist()}: allowed are numbers from 0 to 1")
    alphas = alphas.view(-1, *[1] * z1.ndim)
    return alphas * z1 + (1 - alphas) * z2


def recognised(probabilities: Tensor, ends: Tensor, sure: float = 0.9) -> dict[str, Tensor]:
    """How a classifier predicts images between two digits; the mean over images is a share from 0 to 1.

    probabilities: (..., N, 10); ends: (N, 2), the labels of the two digits. Returns (..., N) each: sure_end,
    one of the two with probability above `sure`; third, the top class is neither; sure_third, both;
    confidence, the largest probability.
    """
    confidence, digit = probabilities.max(-1)
    third, certain = (digit.unsqueeze(-1) != ends).all(-1), confidence > sure
    seen = {"sure_end": certain & ~third, "third": third, "sure_third": certain & third}
    return {name: is_so.float() for name, is_so in seen.items()} | {"confidence": confidence}


def accuracy(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is their label's. images: what the classifier takes; labels: (N,).

    Raises ValueError for unequal numbers of images and labels, and for none.
    """
    if not len(images) == len(labels) > 0:
        raise ValueError(f"{len(images)} images and {len(labels)} labels: allowed are equal numbers from 1")
    return (infer(classifier, images).argmax(1) == labels).double().mean().item()


def nearest_mse(images: Tensor, reference: Tensor) -> Tensor:
    """Mean squared error per pixel to the nearest reference image: (N, 1, 28, 28), (M, 1, 28, 28) -> (N,)."""
    _check_images(images, reference)
    flat, others = images.flatten(1), reference.flatten(1)
    nearest = flat.new_full((len(flat),), math.inf)
    for part in others.split(1_000):  # |x - y|² less |x|², in pieces that stay in the cache
        nearest = torch.minimum(nearest, torch.addmm((part**2).sum(1), flat, part.T, alpha=-2).amin(1))
    return (nearest + (flat**2).sum(1)).clamp_min(0) / flat.shape[1]
