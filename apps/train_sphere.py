"""Train a one-step generator of events on the Earth, score it and draw it.

uv run apps/train_sphere.py                             a generated toy data set, about a minute on a CPU
uv run apps/train_sphere.py --dataset earthquake --data-dir DIR
uv run apps/train_sphere.py --data FILE.csv             latitude and longitude in degrees
"""

import _cli
from drift_core.runs.folder import open_run
from drift_core.training.loop import resample, train
from drift_core.training.parallel import make_accelerator
from drift_sphere import experiment
from drift_sphere.experiment import Config


def main(config: Config) -> None:
    """Train on every process; report on the first."""
    split = experiment.load_split(config)
    field = experiment.make_field(config, split.train)
    generator = experiment.make_generator(config)
    accelerator = make_accelerator(config.tracker)
    out = open_run(config, experiment.DOMAIN, accelerator)
    start = experiment.field_on_grid(field, generator, split.train)
    trained = train(
        generator,
        experiment.with_neighbors(config, field, split.train),
        resample(split.train),
        config,
        out,
        accelerator=accelerator,
        resume=config.resume,
        validate=experiment.validation(config, split),
    )
    if accelerator.is_main_process:
        trained = trained.cpu()
        end = experiment.field_on_grid(field, trained, split.train)
        experiment.report(out, trained, split.train, start, end)
        metrics = experiment.score(config, trained, draws=config.eval_draws)
        _cli.conclude(out, metrics)
    accelerator.end_training()


def parse() -> Config:
    """Settings from the command line."""
    return _cli.train_config(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
