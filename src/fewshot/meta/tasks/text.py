"""Text tasks with hidden rules, for learners that start from one checkpoint. In: a run folder. Out: accuracy against K.

Four ways to learn a rule from the same K demonstrations, tested on the same questions: read them as a prompt; fine-tune
on them; fine-tune from weights that MAML trained; read them with weights that were trained further on prompts of the
very tasks that MAML was given. Training, and the choice of the size and number of steps, is on training rules; the test
is on rules held out (`hidden_` families hold none out).
Source: Brown et al. 2020, section 1 (figure 1.1), Finn et al. 2017; Min et al. 2022 for training on prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from fewshot.base.errors import ContextTooLong, Diverged, check, check_counts, look_up
from fewshot.base.log import note
from fewshot.base.rng import seed_of
from fewshot.checkpoint.load import load_run
from fewshot.evaluate.tasks.novel import FAMILIES, Family
from fewshot.kernels.choose import KERNELS
from fewshot.meta.curves import Curve, Measured, Point, point
from fewshot.meta.episodes import Episodes
from fewshot.meta.flops import flops_of, training_flops
from fewshot.meta.learners.finetune import ChosenSettings, FineTuning, choose_settings
from fewshot.meta.learners.maml import InnerLoop, Start, finite_or_nan, judge_adapted, start_of
from fewshot.meta.learners.weight_learner import WAY_OUT, LearnerConfig, WeightLearner
from fewshot.meta.outer_loop import OuterConfig, OuterLoop, OuterLoss, OuterStep
from fewshot.meta.state import digest
from fewshot.meta.tasks.text_tasks import TextTask, TextTasks, answer_loss, as_episodes, prompts, share_answered
from fewshot.model.gpt import GPT

PROMPT, FINE_TUNING, IDEAL = "prompt", "fine-tuning", "ideal"
IN_CONTEXT_TUNING = "reader"  # training of the checkpoint on prompts; its name in results and state files

AccuracyOf = Callable[[int, Sequence[TextTask]], float]  # seed, tasks -> share of queries answered right


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; the defaults are those of runs/meta_text.yaml."""

    run: str = "out/demo"  # a run folder of text, made by fewshot demo or fewshot train
    kernel: str = "reference"  # of attention; in first order sdpa as well
    tasks: tuple[str, ...] = ("novel_symbols", "hidden_offset", "hidden_letter")
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: int = 5  # of meta-training and of test tasks
    learner: LearnerConfig = field(
        default_factory=lambda: LearnerConfig(
            n_tasks=9, n_support=16, n_query=6, n_steps=3, step_size=0.1, step_sizes="layer", compile="untraced"
        )
    )
    outer: OuterConfig = field(
        default_factory=lambda: OuterConfig(n_iterations=600, lr=3e-3, warmup=20, clip_norm=10.0, report_every=50)
    )
    reader_lr: float | None = 3e-4  # of a model trained as long on prompts of the same tasks; null for no such model
    pretrained: bool = True  # false: the learner in weights begins with a new model, not with the checkpoint
    finetune: FineTuning = field(default_factory=FineTuning)
    test_steps: tuple[int, ...] = (
        1,
        2,
        3,
        5,
        10,
    )  # of the learner in weights, which takes the best of them on validation tasks
    test_tasks: int = 48  # of each family and seed
    test_query: int = 4
    threads: int = 1  # tensors this small gain nothing from a second one

    def __post_init__(self) -> None:
        check(self.seeds >= 2, f"seeds is {self.seeds}, must be at least 2: intervals are over seeds")
        check(
            self.reader_lr is None or 0 < self.reader_lr < math.inf,
            f"reader_lr is {self.reader_lr}, must be above 0 and finite, or null",
        )
        check_counts(self, "test_tasks", "test_query", "threads")
        check(bool(self.tasks), f"tasks names no family, allowed: {', '.join(FAMILIES)}")
        check(bool(self.shots) and min(self.shots) >= 1, f"shots is {list(self.shots)}, must hold numbers from 1 on")
        most, n_support = max(self.shots), self.learner.n_support
        check(most <= n_support, f"shots go up to {most}, learner.n_support only to {n_support}: raise it")
        algorithm = self.learner.algorithm
        check(algorithm != "context", "learners in context are always measured too: name a learner in weights")
        steps = self.test_steps
        check(bool(steps) and min(steps) >= 1, f"test_steps is {list(steps)}, must hold numbers from 1 on")
        for name in self.tasks:
            look_up("family of rules", name, FAMILIES)


class Experiment:
    """The learners that start from one checkpoint; for each seed a learner in weights and a model trained on prompts.

    Raises, before any training, KernelUnsupported for a kernel that the learner cannot be differentiated through, and
    ContextTooLong for more shots than the model can read.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        kernel = look_up("kernel", config.kernel, KERNELS)
        model, self.tokenizer, _ = load_run(Path(config.run), attend=kernel.attend)
        self.model = model.cpu()
        self.data = {"run": digest(dict(self.model.named_parameters()))}
        families = tuple(FAMILIES[name]() for name in config.tasks)
        self.training = TextTasks(families, self.tokenizer, held_out=False, shots=config.shots)
        for family in families:
            self._check_length(family)
        self.learners: list[WeightLearner] = []
        self.prompt_models: list[GPT] = []
        self.loops: dict[str, OuterLoop] = {}
        for seed in range(config.seeds):
            settings = replace(config.outer, seed=config.outer.seed + seed)
            learner = WeightLearner(
                self._copy() if config.pretrained else self._new(settings.seed),
                self.training,
                answer_loss,
                config.learner,
            )
            self.learners.append(learner)
            self.loops[f"{config.learner.name}_{seed}"] = OuterLoop(
                learner.start.named(), learner.step, settings, way_out=WAY_OUT
            )
        for seed in range(config.seeds if config.reader_lr is not None else 0):
            settings = replace(config.outer, seed=config.outer.seed + seed, lr=config.reader_lr or 0.0)
            model = self._copy()
            self.prompt_models.append(model)
            step = partial(self._prompt_step, model, self.training)
            self.loops[f"{IN_CONTEXT_TUNING}_{seed}"] = OuterLoop(
                dict(model.named_parameters()), step, settings, way_out="lower reader_lr"
            )

    def _check_length(self, family: Family) -> None:
        """Raise ContextTooLong if the longest prompts, judged by those of validation, do not fit into the model."""
        drawn, n_ctx = self._draw(family, self.config.outer.seed, held_out=False), self.model.config.n_ctx
        n_tokens = {
            k: prompts(self.tokenizer, [task.first(k) for task in drawn])[0].shape[-1] for k in self.config.shots
        }
        most = max(n_tokens)
        if n_tokens[most] > n_ctx:
            fit = ",".join(str(k) for k, n in n_tokens.items() if n <= n_ctx)
            way_out = (
                f'give --shots "[{fit}]"' if fit else "give fewer lines with --shots, or a run with a larger n_ctx"
            )
            raise ContextTooLong(n_tokens[most], n_ctx, f"a prompt of {most} lines of {family.name}", way_out=way_out)

    def _copy(self) -> GPT:
        """Return a copy of the checkpoint's model, to be trained."""
        copy = self._new(0)
        copy.load_state_dict(self.model.state_dict())
        return copy

    def _new(self, seed: int) -> GPT:
        """Return an untrained model of the checkpoint's shape."""
        torch.manual_seed(seed_of("meta text", "weights", seed))
        return GPT(self.model.config, attend=KERNELS[self.config.kernel].attend).eval()

    def _prompt_step(self, model: GPT, tasks: TextTasks, generator: torch.Generator, done: float) -> OuterLoss:
        """Return the loss of answers after prompts; the same generator as in MAML's step draws the same tasks."""
        settings = self.config.learner
        drawn = tasks.draw_texts(settings.n_tasks, settings.n_support, settings.n_query, generator)
        x, y = prompts(self.tokenizer, drawn)
        return OuterLoss(answer_loss(model(x.flatten(0, 1)), y.flatten(0, 1)))

    def watch(self, name: str) -> Mapping[str, float]:
        """Return nothing: only the loss is logged."""
        return {}

    def measure(self) -> Measured:
        """Return the accuracy against K of each learner and of the ideal one, for each family."""
        curves: list[Curve] = []
        training = self._training_flops()
        for family in self.training.families:
            points_by_learner = self._points(family)
            curves += [
                Curve(
                    learner=name,
                    kind={PROMPT: "context", IN_CONTEXT_TUNING: "context", IDEAL: "bound"}.get(name, "weights"),
                    points=tuple(points),
                    tasks=family.name,
                    training_flops=training.get(name),
                )
                for name, points in points_by_learner.items()
            ]
        return Measured(tasks="text", quantity="accuracy", curves=tuple(curves), more_is_better=True)

    def _points(self, family: Family) -> dict[str, list[Point]]:
        """Return each learner's points over K, all on the same tasks and questions."""
        config = self.config
        validation = self._draw(family, config.outer.seed, held_out=False)
        tests = [self._draw(family, config.outer.seed + seed, held_out=True) for seed in range(config.seeds)]
        points: dict[str, list[Point]] = {}
        for k in config.shots:
            episodes = as_episodes(self.tokenizer, [task.first(k) for task in validation])
            choice = choose_settings(self.model, episodes, answer_loss, share_answered, config.finetune)
            n_steps = {FINE_TUNING: choice.n_steps, config.learner.name: self._best_steps(episodes)}
            steps = ", ".join(f"{name} {n}" for name, n in n_steps.items())
            right = f"{choice.value:.3f} right on training rules"
            note(f"{family.name}, K = {k}: fine-tuning by {choice}, {right}; gradient steps: {steps}")
            with_k = [[task.first(k) for task in tasks] for tasks in tests]
            one_query = [replace(with_k[0][0], queries=with_k[0][0].queries[:1])]
            for name, accuracy in self._accuracies(choice, n_steps).items():
                values = [accuracy(seed, tasks) for seed, tasks in enumerate(with_k)]
                flops = None if name == IDEAL else flops_of(partial(accuracy, 0, one_query))
                share = point(values, n_examples=k, n_steps=n_steps.get(name, 0), flops=flops, is_share=True)
                points.setdefault(name, []).append(share)
        return points

    def _draw(self, family: Family, seed: int, *, held_out: bool) -> list[TextTask]:
        """Return tasks of one family for test or validation, with the most demonstrations of `shots`."""
        config, use = self.config, "test" if held_out else "validation"
        tasks = TextTasks((family,), self.tokenizer, held_out=held_out)
        n = config.test_tasks if held_out else config.finetune.tasks
        generator = torch.Generator().manual_seed(seed_of("meta text", use, family.name, seed))
        return tasks.draw_texts(n, max(config.shots), config.test_query, generator)

    def _best_steps(self, validation: Episodes) -> int:
        """Return the number of steps with the best accuracy of the learners in weights on validation tasks."""
        inner, steps = self.config.learner.inner(second_order=False), self.config.test_steps
        values = [
            judge_adapted(self.model, learner.start, validation, answer_loss, share_answered, inner, steps).mean(0)
            for learner in self.learners
        ]
        accuracies = dict(zip(steps, torch.stack(values).mean(0).tolist(), strict=True))
        accuracies = {n: value for n, value in accuracies.items() if math.isfinite(value)}
        if not accuracies:
            raise Diverged(
                f"the predictions of {self.config.learner.name} after its steps are not finite with any of test_steps, "
                f"{list(steps)}: lower learner.step_size or test_steps"
            )
        return max(accuracies, key=lambda n: (accuracies[n], -n))  # of equals the fewest steps

    def _accuracies(self, choice: ChosenSettings, n_steps: Mapping[str, int]) -> dict[str, AccuracyOf]:
        """Return each learner's accuracy as a function of a seed and tasks."""
        learned = self.config.learner
        accuracies: dict[str, AccuracyOf] = {
            PROMPT: lambda seed, tasks: self._prompt_accuracy(self.model, tasks),
            FINE_TUNING: lambda seed, tasks: self._adapted_accuracy(
                start_of(self.model), tasks, choice.inner, n_steps[FINE_TUNING]
            ),
            learned.name: lambda seed, tasks: self._adapted_accuracy(
                self.learners[seed].start, tasks, learned.inner(second_order=False), n_steps[learned.name]
            ),
        }
        if self.prompt_models:
            accuracies[IN_CONTEXT_TUNING] = lambda seed, tasks: self._prompt_accuracy(self.prompt_models[seed], tasks)
        accuracies[IDEAL] = lambda seed, tasks: sum(task.ideal() for task in tasks) / len(tasks)
        return accuracies

    def _prompt_accuracy(self, model: GPT, tasks: Sequence[TextTask]) -> float:
        x, y = prompts(self.tokenizer, tasks)
        with torch.no_grad():
            return finite_or_nan(share_answered)(model(x.flatten(0, 1)), y.flatten(0, 1)).item()

    def _adapted_accuracy(self, start: Start, tasks: Sequence[TextTask], inner: InnerLoop, n_steps: int) -> float:
        episodes = as_episodes(self.tokenizer, tasks)
        return judge_adapted(self.model, start, episodes, answer_loss, share_answered, inner, [n_steps]).mean().item()

    def _training_flops(self) -> dict[str, float]:
        """Return the FLOPs of one seed's outer loops: the mean of an iteration with each K, times their number."""
        config, totals = self.config, {self.config.learner.name: 0.0, IN_CONTEXT_TUNING: 0.0}
        for k in config.shots:
            tasks = replace(self.training, shots=(k,))
            learner = WeightLearner(self.model, tasks, answer_loss, replace(config.learner, compile="untraced"))
            prompt_step: OuterStep = partial(self._prompt_step, self.model, tasks)
            for name, step in ((config.learner.name, learner.step), (IN_CONTEXT_TUNING, prompt_step)):
                totals[name] += training_flops(step, n_iterations=config.outer.n_iterations)
        return {name: total / len(config.shots) for name, total in totals.items()}
