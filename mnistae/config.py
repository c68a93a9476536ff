"""What an experiment is, as data: change a field and it is another experiment.

The records are checked when they are made. The ValidationError, a ValueError, names field, value and range.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

# Without strict, pydantic accepts True and "3" as numbers. A misspelt field is an error.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Rate = Annotated[float, Field(ge=1e-6, le=10)]
Strength = Annotated[float, Field(ge=0, le=10)]  # 0 is none
Width = Annotated[int, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(strict=False, min_length=1, max_length=5)]  # a list will do
Network = Literal["frozen", "fine_tuned", "from_scratch", "probe_then_fine_tuned"]
Baseline = Literal["logistic_code", "logistic_pca", "logistic_pixels"]
Spreading = Literal["spreading_code", "spreading_pca", "spreading_pixels"]
Scheme = Network | Baseline | Spreading

# Fields that the oldest committed files lack: the letters in a file's name, and the value before the field.
LATER_FIELDS = dict(
    noise=("z", 0.0), kl_weight=("kl", 0.0), loss=("loss", "mse"), downsampling=("down", "stride")
)


@dataclass(frozen=True, config=STRICT)
class Config:
    """All that decides one network's parameters; also its key in tables and its checkpoint's name."""

    latent_dim: Annotated[int, Field(ge=1, le=784)] = 10  # d, the numbers in a code
    channels: Widths = (8, 32, 64, 88)  # of the strided layers: 28 pixels halve to 1 in five steps
    kernel_size: Literal[3, 5, 7, 9] = 3  # odd, so that each layer halves the size, rounding up
    task: Literal["reconstruct", "classify"] = "reconstruct"  # by squared error, or by cross-entropy
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: Rate = 0.03  # its peak
    weight_decay: Strength = 0.05  # per unit of the learning rate, on matrices and kernels
    batch_size: Annotated[int, Field(ge=2, le=60_000)] = 64
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 6
    distortion: Strength = 0.0  # of `data.distorted`, on half of each batch
    images: Annotated[int, Field(ge=2, le=55_000)] = 55_000  # the first ones of the training images
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    noise: Strength = 0.0  # on the code during training, in standard deviations of each coordinate
    kl_weight: Strength = 0.0  # of the KL divergence (nats per image); above 0 the code is variational
    loss: Literal["mse", "l1"] = "mse"  # of reconstruction in training; validation is squared error always
    downsampling: Literal["stride", "max_pool"] = "stride"  # max_pool: another architecture, to classify

    @model_validator(mode="after")
    def _regularised_in_one_way(self) -> Self:
        if (self.noise > 0) + (self.kl_weight > 0) + (self.task == "classify") > 1:
            raise ValueError("noise, kl_weight and task='classify': allowed is one of the three")
        if self.downsampling == "max_pool" and self.task != "classify":
            raise ValueError("downsampling='max_pool': allowed is task='classify'")
        return self

    @property
    def name(self) -> str:
        """All fields, so that no two configs share a file; those of LATER_FIELDS only if they differ."""
        widths, values = "-".join(map(str, self.channels)), vars(self)
        later = [f"_{sign}{values[of]}" for of, (sign, old) in LATER_FIELDS.items() if values[of] != old]
        return (
            f"{self.task}_d{self.latent_dim}_c{widths}_k{self.kernel_size}_{self.optimizer}{self.learning_rate!r}"
            f"_w{self.weight_decay!r}_b{self.batch_size}_e{self.epochs}_x{self.distortion!r}_n{self.images}"
            f"{''.join(later)}_s{self.seed}"
        )


@dataclass(frozen=True, config=STRICT)
class Transfer:
    """One classifier trained on 10 · labels_per_class labelled training images.

    scheme: an MLP on a frozen encoder; the network fine-tuned, from a new head or from that MLP; the network
    trained from scratch. Or logistic regression or label spreading, on codes, principal components or pixels.
    """

    scheme: Scheme
    encoder: Config  # the auto-encoder whose encoder is taken
    labels_per_class: Annotated[int, Field(ge=1, le=5_000)]
    draw: Annotated[int, Field(ge=0, le=2**31)]  # seed of the random choice of labelled images
    split: Literal["validation", "test"] = "test"  # the evaluation split
    hidden: Annotated[int, Field(ge=1, le=4_096)] = 64  # units of the MLP
    steps: Annotated[int, Field(ge=1, le=100_000)] = 200  # each on as many images as there are labels
    head_rate: Rate = 0.01  # peak learning rate of AdamW, as the next
    encoder_rate: Rate = 0.001
    weight_decay: Strength = 0.01
    noise: Strength = 0.3  # on codes during training, as in `Config`
    distortion: Strength = 0.0  # of further copies of each image; steps are rounded to whole passes over all
    fixed_norm: bool = True  # batch norm keeps the statistics of pre-training
    penalty: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0  # 1/C, all that logistic regression uses
    neighbours: Annotated[int, Field(ge=1, le=1_000)] = 15  # of each node of the graph that labels spread on
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.99  # the share that a node takes from its neighbours
    nodes: Annotated[int, Field(ge=11, le=55_000)] = 55_000  # the first ones of the training images
    teacher: Literal["labels", "spread", "spread_soft"] = "labels"  # the other two: spread to all nodes
    batch_size: Annotated[int, Field(ge=0, le=60_000)] = 0  # 0: as many as there are labels

    @model_validator(mode="after")
    def _encodes_images(self) -> Self:
        if self.encoder.task != "reconstruct":
            raise ValueError(f"encoder.task={self.encoder.task!r}: allowed is 'reconstruct'")
        return self


@dataclass(frozen=True, config=STRICT)
class Probe:
    """A network, trained from the one of `encoder`, that no Config names.

    ill_conditioned_start: trained as `encoder` says, from a start that computes the same function with a code
    map of condition `amount`. retrained_decoder: a new decoder, trained as `encoder` says, that sees the
    `amount` strongest principal directions of the code.
    """

    scheme: Literal["ill_conditioned_start", "retrained_decoder"]
    encoder: Config
    amount: Annotated[int, Field(ge=1, le=1_000_000)]
    draw: int = 0

    @model_validator(mode="after")
    def _can_be_probed(self) -> Self:
        for name, plain in dict(task="reconstruct", noise=0.0, kl_weight=0.0, loss="mse").items():
            if (value := getattr(self.encoder, name)) != plain:
                raise ValueError(f"encoder.{name}={value!r}: allowed is {plain!r}")
        most = self.encoder.latent_dim
        if self.scheme == "retrained_decoder" and self.amount > most:
            raise ValueError(f"amount={self.amount}: allowed is 1 to {most}, the latent_dim")
        return self
