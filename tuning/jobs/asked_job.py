"""What somebody asks for with POST /v1/fine_tuning/jobs, checked and settled before any row is read.

OpenAI's `method` says how: `supervised` is graftax's task `sft`, `dpo` is `dpo`. Their hyperparameters are fields of a recipe:

    n_epochs                    epochs                                      "auto": 3
    batch_size                  batch_size                                  "auto": 32
    learning_rate_multiplier    lr = multiplier x the recipe's (1e-3)       "auto": 1
    beta (of dpo)               beta                                        "auto": 0.1

"auto" is what the recipe under `graftax` says, and where that says nothing the recipe's own default, as above. The object
`graftax`, which a client sends as `extra_body`, has what OpenAI's API has no words for:

    {"task": "classify", "method": {"name": "lora", "r": 8}, "recipe": {"lr": 5e-4}, "columns": {"text": "review"}}

A method, or a list of several that form one adapter, is a name with the method's own fields; an empty list trains the head
alone. A job of a higher `priority` (0, unless it is said) begins before those of lower ones. Nothing is passed over:
a name that is not known is refused, with those that are.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from ...adapters.adapter import Adapter
from ...adapters.method import Method
from ...adapters.methods.method_registry import all_methods
from ...adapters.methods.named import method_from
from ...data.columns import Columns
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...models.chat import TEMPLATES
from ...serve.http.complaints import Refused
from ...tasks.fit import refuse_unfit_task
from ...tasks.read_examples import check_columns
from ...tasks.task import Task
from ...tasks.task_registry import the_task
from ...train.recipe import Epochs, Recipe
from ...typed import Name, Positive, ShortSeed, Some, Such, Within, shown
from .job_record import JobRequest

Auto = Literal["auto"]
AUTO: Auto = "auto"
_KINDS = ("supervised", "dpo", "reinforcement")
_LONGEST = 2048  # tokens of a row, unless the recipe says another number
_MOST_METADATA, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512
_LONGEST_SUFFIX = 64


def _is_metadata(pairs: Mapping[str, str]) -> bool:
    lengths = all(len(key) <= _LONGEST_KEY and len(value) <= _LONGEST_VALUE for key, value in pairs.items())
    return len(pairs) <= _MOST_METADATA and lengths


def _is_suffix(suffix: str) -> bool:
    return 0 < len(suffix) <= _LONGEST_SUFFIX and all(letter.isalnum() or letter in "-_." for letter in suffix)


Suffix = Annotated[str, Such(f"1 to {_LONGEST_SUFFIX} letters, digits, -, _ and .", _is_suffix)]
_Metadata = Such(
    f"at most {_MOST_METADATA}, keys up to {_LONGEST_KEY} and values up to {_LONGEST_VALUE} characters", _is_metadata
)


@dataclass(frozen=True)
class Hyperparameters:
    """Of method `supervised`."""

    n_epochs: Auto | Epochs = AUTO
    batch_size: Auto | Some = AUTO
    learning_rate_multiplier: Auto | Positive = AUTO


@dataclass(frozen=True)
class DpoHyperparameters(Hyperparameters):
    """Of method `dpo`."""

    beta: Auto | Positive = AUTO


@dataclass(frozen=True)
class Supervised:
    hyperparameters: Hyperparameters = Hyperparameters()


@dataclass(frozen=True)
class Dpo:
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


@dataclass(frozen=True)
class AskedMethod:
    """OpenAI's `method`."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OfGraftax:
    """What OpenAI's API has no words for."""

    task: Name | None = None  # None: what OpenAI's method means
    method: Any = None  # an object, or a list of them (`_method_from`); None: LoRA, or of an adapter that goes on none
    recipe: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Name] = field(default_factory=dict)
    priority: Annotated[int, Within(-100, most=100)] = 0


@dataclass(frozen=True, kw_only=True)
class AskedJob:
    """The body of the request."""

    model: Name
    training_file: Name
    validation_file: Name | None = None
    suffix: Suffix | None = None
    seed: ShortSeed | None = None  # None: one is drawn
    metadata: Annotated[Mapping[str, str], _Metadata] = field(default_factory=dict)
    method: AskedMethod | None = None
    hyperparameters: Hyperparameters | None = None  # of method `supervised`, as it was said before there was `method`
    integrations: Sequence[Any] = ()
    graftax: OfGraftax = field(default_factory=OfGraftax)


def asked_job(asked: AskedJob, model: str, backbone: Backbone, before: Adapter | None) -> JobRequest:
    """The request that a body stands for.

    Args:
        model: what the job's model is called from now on, whatever the name in the body comes to mean.
        before: the adapter that it is, from which training goes on; None: the base.

    Raises:
        Refused: it names the parameter, where something does not fit.
    """
    if asked.integrations:
        raise Refused(400, "integrations: none are supported; metrics are a job's events.", param="integrations")
    method = _method_of(asked)
    try:
        task = _task_of(asked, method, backbone)
        fresh = _method_said(asked.graftax.method, before)
        methods = (*methods_of(fresh), *(before.methods if before else ()))
        columns = Columns(**asked.graftax.columns)
        check_columns(columns, task, backbone.processor)
        recipe = _recipe_of(asked, method, task, backbone, methods)
    except GraftaxError as error:
        raise Refused(400, f"graftax: {error}", param="graftax") from None
    return JobRequest(
        model=model,
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        task=task.name,
        method=fresh,
        recipe=_differing(recipe),
        columns=columns.named,
        suffix=asked.suffix,
        priority=asked.graftax.priority,
        metadata=asked.metadata,
        asked=_settled(method, recipe),
    )


def methods_of(said: Sequence[Mapping[str, Any]]) -> tuple[Method, ...]:
    """The methods that objects such as `{"name": "lora", "r": 8}` stand for."""
    made = tuple(map(_method_from, said))
    if len({method.key for method in made}) < len(made):
        raise GraftaxError("method: of several each is another one.")
    return made


def _method_from(fields: Mapping[str, Any]) -> Method:
    name = fields.get("name")
    if not isinstance(name, str) or name not in all_methods() or name == "head":
        there = ", ".join(one for one in all_methods() if one != "head")
        raise GraftaxError(f"method: its name is {shown(name)}, and must be one of {there}.")
    return method_from(name, {key: value for key, value in fields.items() if key != "name"}, f"method {name}")


def _method_said(asked: Any, before: Adapter | None) -> list[Mapping[str, Any]]:
    """The methods that begin afresh, each as an object: what is asked for, else LoRA, or nothing beside an adapter."""
    if asked is None:
        return [{"name": "lora"}] if before is None else []
    several = [asked] if isinstance(asked, Mapping) else asked
    if not isinstance(several, list) or not all(isinstance(one, Mapping) for one in several):
        raise GraftaxError(f"method must be an object with the name of a method, or a list of such, got {shown(asked)}.")
    return several


def _method_of(asked: AskedJob) -> AskedMethod:
    """OpenAI's method, with hyperparameters of its own kind alone."""
    method = asked.method
    if method is None:
        kind: Literal["supervised", "dpo"] = "dpo" if asked.graftax.task == "dpo" else "supervised"
        method = AskedMethod(kind)
    if method.type == "reinforcement":
        said = "method: reinforcement is not trained as a job here; `graftax train --task grpo` and loops of one's own do that."
        raise Refused(400, said, param="method")
    others = [kind for kind in _KINDS if kind != method.type and getattr(method, kind) is not None]
    if others:
        raise Refused(400, f"method: it is of type {method.type!r} and has settings of {others[0]!r}.", param="method")
    if asked.hyperparameters is None:
        return method
    if method.type != "supervised" or method.supervised is not None:
        said = "hyperparameters: method has some; say them there alone (this older name is of supervised training)."
        raise Refused(400, said, param="hyperparameters")
    return AskedMethod("supervised", Supervised(asked.hyperparameters))


def _hyperparameters(method: AskedMethod) -> Hyperparameters:
    if method.type == "dpo":
        return (method.dpo or Dpo()).hyperparameters
    return (method.supervised or Supervised()).hyperparameters


def _task_of(asked: AskedJob, method: AskedMethod, backbone: Backbone) -> Task:
    said = asked.graftax.task
    if said is not None and (said == "dpo") != (method.type == "dpo"):
        raise GraftaxError(f"task is {said!r}, and method is of type {method.type!r}.")
    task = the_task(said or ("dpo" if method.type == "dpo" else "sft"))
    refuse_unfit_task(task, backbone)
    return task


#: OpenAI's name of a hyperparameter -> the recipe's
_NAMES = {"n_epochs": "epochs", "batch_size": "batch_size", "beta": "beta"}


def _recipe_of(asked: AskedJob, method: AskedMethod, task: Task, backbone: Backbone, methods: Sequence[Method]) -> Recipe:
    """The recipe, of what is said under `graftax` and of OpenAI's hyperparameters."""
    said, given = dict(asked.graftax.recipe), asdict(_hyperparameters(method))
    for name, own in {**_NAMES, "seed": "seed"}.items():
        value = asked.seed if name == "seed" else given.get(name, AUTO)
        if value is None or value == AUTO:
            continue
        if own in said:
            raise GraftaxError(f"recipe: {own} is what {name} says already; say it once.")
        said[own] = value
    if said.get("chat_template") not in (None, *TEMPLATES):
        raise GraftaxError(
            f"recipe: chat_template must be one of {', '.join(TEMPLATES)}; a program of one's own is not run here."
        )
    said.setdefault("seed", secrets.randbelow(1 << 31))
    room = backbone.processor.room(sum(one.virtual_tokens for one in methods))
    if "max_length" not in said and room > 1:
        refuses = task.name in ("sft", "dpo")  # a longer row, which others cut
        usual = _LONGEST if refuses else Recipe().max_length
        said["max_length"] = min(usual, room)
    recipe = Recipe().replace(**said)
    multiplier = given["learning_rate_multiplier"]
    return recipe if multiplier == AUTO else recipe.replace(lr=recipe.lr * multiplier)


def _differing(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that are not its defaults, and its seed."""
    return {name: value for name, value in asdict(recipe).items() if value != getattr(Recipe(), name) or name == "seed"}


def _settled(method: AskedMethod, recipe: Recipe) -> dict[str, Any]:
    """OpenAI's method with numbers in place of "auto"."""
    asked = asdict(_hyperparameters(method))
    numbers = {name: getattr(recipe, own) for name, own in _NAMES.items() if name in asked}
    multiplier = asked["learning_rate_multiplier"]
    numbers["learning_rate_multiplier"] = 1.0 if multiplier == AUTO else multiplier
    return {"type": method.type, method.type: {"hyperparameters": numbers}}
