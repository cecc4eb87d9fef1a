"""Train a one-step generator of promoter DNA given the CAGE signal, score it and draw it.

uv run apps/train_promoter.py                            generated promoters with motifs, a minute on a CPU
uv run apps/train_promoter.py --dataset promoter --data-dir DIR --preset base --batch-size 128
uv run apps/train_promoter.py --tss tiled.tsv --data-dir DIR    another table of start sites in DIR
"""

import _cli
from drift_core.runs.folder import open_run
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator, warn
from drift_promoter import experiment
from drift_promoter.experiment import Config, Sampler


def main(config: Config) -> None:
    """Train on every process; report on the first."""
    accelerator = make_accelerator(config.tracker)
    data = experiment.load_data(config)
    generator = experiment.make_generator(config, data)
    field = experiment.make_field(config, data)
    out = open_run(config, experiment.DOMAIN, accelerator)
    if data.skipped:
        warn(accelerator, f"{data.skipped:,} windows with an N were skipped")
    trained = train(
        generator,
        field,
        experiment.positives(config, data),
        config,
        out,
        sample_condition=experiment.conditions(config, data),
        accelerator=accelerator,
        resume=config.resume,
        validate=experiment.validation(config, data),
    )
    if accelerator.is_main_process:
        sampler = Sampler(trained, data)
        experiment.report(out, sampler)
        metrics = experiment.score(config, sampler, draws=config.eval_draws)
        _cli.conclude(out, metrics)
    accelerator.end_training()


def parse() -> Config:
    """Settings from the command line."""
    return _cli.train_config(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
