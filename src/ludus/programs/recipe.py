"""The recipe of `ludus train`: what `RECIPE.toml` may say. The defaults are the vetted setting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ludus.config import Config

if TYPE_CHECKING:
    from ludus.engine.torch.lora import LoraSettings

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


def _as_names(value: Any) -> Any:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("should be a list of names, such as one,other")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
"""A list, or names with commas between them."""


class LoraConfig(Config):
    """Train a LoRA adapter, and leave the model beneath it as it is."""

    rank: Positive = 16
    """Of the matrices that are added."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """What is added counts alpha / rank."""
    targets: Names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Projections that it acts on."""


class EnvConfig(Config):
    """One environment of a mixture."""

    env: str
    """What `ludus eval ENV` takes."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$")] | None = None
    """Its name in metrics and reports; by default made from `env`."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Its share of every batch, beside the weights of the others."""
    options: dict[str, Any] = {}
    """Keyword arguments of the environment."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """In place of `rl.temperature`."""
    max_tokens: Positive | None = None
    """In place of `rl.max_tokens`."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """In place of the recipe's `timeout_s`."""

    @property
    def label(self) -> str:
        """Its name, or one made from `env`.

        >>> EnvConfig(env="rg:gcd").label, EnvConfig(env="envs/sort.py:Sort").label
        ('rg:gcd', 'sort.py:Sort')
        """
        return self.name or re.sub(r"[^A-Za-z0-9._:-]+", "-", self.env.rsplit("/", 1)[-1]).strip("-") or "unnamed"


class SftConfig(Config):
    """Warm-up on the environment's own demonstrations, or on conversations from a file."""

    steps: Annotated[int, Field(ge=0)] = 200
    """Optimiser steps."""
    batch_size: Positive = 64
    """Demonstrations a step."""
    num_demonstrations: Positive = 4096
    """Demonstrations made before training; they are passed over as often as the steps need."""
    data: str = ""
    """A file of conversations to learn from in their place, such as `ludus data make` writes."""
    lr: Rate = 3e-3
    """Peak learning rate: linear warm-up over the first twentieth of the steps, then cosine decay to nothing."""


class RlConfig(Config):
    """Reinforcement learning on groups of rollouts of the same task."""

    steps: Annotated[int, Field(ge=0)] = 100
    """Batches of rollouts, each followed by `updates` optimiser steps."""
    groups: Positive = 16
    """Tasks a batch, counted after groups without variance were dropped."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Rollouts a task."""
    updates: Positive = 1
    """Optimiser steps a batch; above 1, later ones are off-policy and the clip matters."""
    lr: Rate = 3e-4
    """Peak learning rate."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the learning rate rises."""
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the peak to which it decays (cosine)."""
    advantage: str = "group_mean"
    """How rewards of a group become advantages: a name in `ludus.programs.advantages`."""
    loss: str = "ppo"
    """A name in `ludus.engine.torch.losses`."""
    loss_params: dict[str, float] = {}
    """The loss's own numbers, such as clip_low and clip_high."""
    aggregate: Literal["token", "rollout"] = "token"
    """Whether every trained token of the batch weighs the same, or every rollout."""
    truncated: Literal["keep", "mask", "zero"] = "keep"
    """Rollouts with a reply cut off at its limit: trained on as they were scored, left out of the loss, or trained on as
    if their reward were 0, where a scorer does not mind a reply that never ends."""
    refill: Annotated[float, Field(ge=0)] = 2.0
    """Extra groups run, as a multiple of `groups`, to replace those whose rewards are all equal; 0 only drops them."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Positive | None = None
    """Tokens a reply; by default the environment's own limit, or what the context leaves."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0


class EvalConfig(Config):
    """Evaluation on tasks that are never trained on: at the start, after SFT, every so often, at the end."""

    num_tasks: Positive = 256
    split: str = "test"
    samples: Positive = 1
    """Rollouts a task."""
    every: Annotated[int, Field(ge=0)] = 25
    """RL steps between evaluations; 0 evaluates at the ends only."""
    greedy: bool = True
    """Also at temperature 0, at the ends."""
    role_models: dict[str, str] = {}
    """Who plays other roles in evaluations, by role: in self-play something that stays the same. By default who plays
    them in training."""


class Recipe(Config):
    """One training run, from a model to a better one."""

    name: str
    """The run folder is `runs/NAME`."""
    env: str | None = None
    """What `ludus eval ENV` takes; of a mixture, `envs` in its place."""
    env_options: dict[str, Any] = {}
    """Keyword arguments of the environment."""
    envs: Annotated[tuple[EnvConfig, ...], Field(min_length=1)] | None = None
    """The environments of a mixture, a table [[envs]] each."""
    model: str
    """A model folder or a run; or `preset:tiny` for a new model from random weights."""
    role_models: dict[str, str] = {}
    """Models of roles, by role; those are frozen. Roles not named here are played by the model, and trained."""
    seed: Annotated[int, Field(ge=0)] = 0
    deterministic: bool = False
    """Bit for bit the same on the same machine and build, also after `--resume`; slower."""
    concurrency: Positive = 128
    """Rollouts at once."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that run the environment, or each of several; 0 runs it in this one."""
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds a rollout may take."""
    save_every: Positive = 25
    """Optimiser steps of SFT, or steps of RL, between states that `--resume` can go on from."""
    overwrite: bool = False
    """Replace a run folder of this name."""
    runs: str = "runs"
    """Folder that holds the run folders."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of weights and activations; auto is what the model is stored in. Optimisers step float32 weights in any case."""
    recompute: bool = False
    """Run layers again in the backward pass rather than keep what they computed: less memory, more time."""
    threads: Positive | None = None
    """CPU threads of the engine; by default what does not collapse beside another busy process."""
    sinks: Names = ()
    """Where metrics go as well, while the run goes on: tensorboard, trackio, wandb, or one of your own."""
    keep_thinking: bool | None = None
    """Whether earlier replies keep their reasoning, where the chat template can choose; exported with the model. By
    default as the template has it."""
    lora: LoraConfig | None = None
    sft: SftConfig | None = None
    rl: RlConfig | None = None
    eval: EvalConfig | None = None

    @property
    def environments(self) -> dict[str, EnvConfig]:
        """What is said of each environment, by its name; the only one is called ""."""
        if self.env is not None:
            return {"": EnvConfig(env=self.env, options=self.env_options)}
        return {config.label: config for config in self.envs or ()}

    @property
    def title(self) -> str:
        """The environment or environments, for people."""
        return self.env if self.env is not None else " + ".join(self.environments)

    def max_tokens(self, env: EnvConfig) -> int | None:
        """Tokens a reply in an environment, where the recipe limits them."""
        return env.max_tokens or (self.rl.max_tokens if self.rl else None)

    @property
    def num_steps(self) -> dict[str, int]:
        """Steps of each stage."""
        return {"sft": self.sft.steps if self.sft else 0, "rl": self.rl.steps if self.rl else 0}

    def lora_settings(self) -> LoraSettings | None:
        """The adapter that is asked for. Raises UnknownName for a target that does not exist."""
        from ludus.engine.torch.lora import LoraSettings

        return None if self.lora is None else LoraSettings(self.lora.rank, self.lora.alpha, self.lora.targets)

    @model_validator(mode="after")
    def _has_environments(self) -> Recipe:
        if (self.env is None) == (self.envs is None):
            raise ValueError("a recipe needs either the key env or a table [[envs]] for each environment of a mixture")
        if self.envs is not None and self.env_options:
            raise ValueError("env_options belong to env; each table of [[envs]] has options of its own")
        labels = [config.label for config in self.envs or ()]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two of the [[envs]] are called {label}: give one of them another name")
        return self

    @model_validator(mode="after")
    def _has_work(self) -> Recipe:
        if not (self.sft or self.rl or self.eval):
            raise ValueError("a recipe needs at least one of the tables [sft], [rl], [eval]")
        if self.deterministic and self.dtype == "bfloat16":
            raise ValueError("deterministic = true computes in float32: leave dtype out")
        return self
