"""Where compiled programs are kept."""

import pathlib

import jax
import pytest

from devices import program_cache


@pytest.fixture
def directory(monkeypatch):
    """What JAX is told, which is put back."""
    before = {name: getattr(jax.config, name) for name in FIELDS}
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    yield lambda: jax.config.jax_compilation_cache_dir
    for name, value in before.items():
        jax.config.update(name, value)


FIELDS = ['jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs']


def test_programs_are_kept_in_the_users_cache_by_the_kind_of_processor(
    directory, monkeypatch, tmp_path
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    program_cache.keep_programs()
    assert pathlib.Path(directory()).parent == tmp_path / 'score_sde'
    own = directory()
    monkeypatch.setattr(pathlib.Path, 'read_text', lambda path: 'flags\t: fpu sse9\n')
    program_cache.keep_programs()
    assert directory() != own


def test_a_directory_that_is_named_stays(directory, monkeypatch, tmp_path):
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path))
    before = directory()
    program_cache.keep_programs()
    assert directory() == before


def test_a_user_without_a_home_keeps_nothing(directory, monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr('os.path.expanduser', lambda path: path)
    before = directory()
    program_cache.keep_programs()
    assert directory() == before
