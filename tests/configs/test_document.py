"""docs/fields.md."""

from configs import base, document, fields


def test_the_document_is_up_to_date():
    assert document.PATH.read_text() == document.text(), 'run python -m configs.document'


def test_every_field_has_a_row():
    text = document.text()
    for create in base.EXPERIMENTS.values():
        for network in fields.networks(create(None)) or (None,):
            for name in fields.flat(create(network)):
                assert f'| `{name}` |' in text or name == 'model.name'


def test_a_row_says_all_that_is_declared():
    text = document.text()
    kinds = '`score_model`, `classifier`, `latent_score_model`, `simulated_score_model`'
    assert f'| `optim.ema_rate` | `0.9999` | number, >= 0, < 1 | {kinds} |  | decay of the' in text
    of_sde = '`sampling.method` or `eval.samplers`: `sde` | yes | solver of'
    assert f'`score_model`, `latent_score_model`; {of_sde}' in text
    assert '| `sde.sigma_min` | `0.002` | number, >= 1e-06, <= 1,000,000 | noise level' in text
