"""Train a one-step generator of a checkerboard or a swiss roll, score it and draw it.

uv run apps/train_synthetic.py                  the checkerboard on the sphere, about a minute on a CPU
uv run apps/train_synthetic.py --target swiss-roll --space hyperboloid
uv run apps/train_synthetic.py --direction displacement --geometry euclidean
"""

import _cli
from drift_core.runs.folder import open_run
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator
from drift_synthetic import experiment
from drift_synthetic.experiment import Config
from drift_synthetic.snapshots import write_snapshots


def main(config: Config) -> None:
    """Train on every process; report on the first."""
    problem = experiment.problem_of(config)
    field = experiment.make_field(config)
    generator = experiment.make_generator(config)
    accelerator = make_accelerator(config.tracker)
    out = open_run(config, experiment.DOMAIN, accelerator)
    trained = train(
        generator,
        field,
        problem.sample,
        config,
        out,
        accelerator=accelerator,
        resume=config.resume,
        validate=experiment.validation(config),
        on_step=write_snapshots(problem.space, out, config.steps),
    )
    if accelerator.is_main_process:
        trained = trained.cpu()
        experiment.report(out, config, trained)
        metrics = experiment.score(config, trained, draws=config.eval_draws)
        _cli.conclude(out, metrics)
    accelerator.end_training()


def parse() -> Config:
    """Settings from the command line."""
    return _cli.train_config(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
