"""Train a one-step generator of molecules, written as SMILES, score it and draw it.

uv run apps/train_qm9.py                                 a small chemical space, about a minute on a CPU
uv run apps/train_qm9.py --dataset qm9 --data-dir DIR --preset base --batch-size 1024
uv run apps/train_qm9.py --data FILE.smi                 one SMILES a line
"""

import _cli
from drift_core.runs.folder import open_run
from drift_core.training.loop import train
from drift_core.training.parallel import make_accelerator, warn
from drift_qm9 import experiment
from drift_qm9.experiment import Config


def main(config: Config) -> None:
    """Train on every process; report on the first."""
    data = experiment.load_data(config)
    generator = experiment.make_generator(config, data)
    field = experiment.make_field(config, data)
    accelerator = make_accelerator(config.tracker)
    out = open_run(config, experiment.DOMAIN, accelerator)
    if data.skipped:
        warn(accelerator, f"{data.skipped:,} lines of {config.data} were skipped")
    sample = experiment.positives(config, data)
    trained = train(
        generator,
        field,
        sample,
        config,
        out,
        accelerator=accelerator,
        resume=config.resume,
        validate=experiment.validation(config, data),
    )
    if accelerator.is_main_process:
        experiment.report(out, trained, data)
        metrics = experiment.score(config, trained, draws=config.eval_draws)
        _cli.conclude(out, metrics)
    accelerator.end_training()


def parse() -> Config:
    """Settings from the command line."""
    return _cli.train_config(Config)


if __name__ == "__main__":
    _cli.run(main, parse)
