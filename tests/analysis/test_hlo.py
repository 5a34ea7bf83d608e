"""Operations, traffic and communication, of programs written by hand and of one that XLA made."""

import os
import subprocess
import sys

import pytest

from analysis import hlo
from tests.support import program

# What XLA writes of a sum of two arrays over eight devices, in a loop of five rounds.
LOOP = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[10,4], bf16[6])) -> (s32[], f32[10,4], bf16[6]) {
  %state = (s32[], f32[10,4]{1,0:T(8,128)}, bf16[6]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[10,4]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %y = bf16[6]{0} get-tuple-element(%state), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %both = (f32[10,4]{1,0:T(8,128)}, /*index=1*/bf16[6]{0}) all-reduce(%x, %y), replica_groups={}, to_apply=%add
  %p = f32[10,4]{1,0:T(8,128)} get-tuple-element(%both), index=0
  %q = bf16[6]{0} get-tuple-element(%both), index=1
  ROOT %out = (s32[], f32[10,4]{1,0:T(8,128)}, bf16[6]{0}) tuple(%next, %p, %q)
}

%condition (state: (s32[], f32[10,4], bf16[6])) -> pred[] {
  %state.1 = (s32[], f32[10,4]{1,0:T(8,128)}, bf16[6]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(CONSTANT)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x0: f32[10,4], y0: bf16[6]) -> f32[10,4] {
  %x0 = f32[10,4]{1,0:T(8,128)} parameter(0)
  %y0 = bf16[6]{0} parameter(1)
  %zero = s32[] constant(START)
  %start = s32[] copy(%zero)
  %state0 = (s32[], f32[10,4]{1,0:T(8,128)}, bf16[6]{0}) tuple(%start, %x0, %y0)
  %loop = (s32[], f32[10,4]{1,0:T(8,128)}, bf16[6]{0}) while(%state0), condition=%condition, body=%body, KNOWN
  ROOT %result = f32[10,4]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501
KNOWN = 'backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}'
# Each of eight devices sends 7/8 of an array twice.
ONCE = 2 * 7 * (10 * 4 * 4 + 6 * 2) // 8


def loop(constant='99', start='0', known=''):
    text = LOOP.replace('CONSTANT', constant).replace('START', start).replace('KNOWN', known)
    return hlo.read(text, 8)


def body_of(lines, num_devices=8):
    """What is read of a program of these lines, after arrays x of 400, y of 100 bytes."""
    head = [
        'ENTRY %main (x: f32[100], y: f32[25]) -> f32[100] {',
        '%x = f32[100]{0} parameter(0)',
        '%y = f32[25]{0} parameter(1)',
    ]
    return hlo.read('\n  '.join([*head, *lines]) + '\n}\n', num_devices)


# Loops


def test_a_body_counts_as_often_as_xla_says():
    assert loop(known=KNOWN).sent_bytes == {'all-reduce': 5 * ONCE}


def test_a_body_counts_as_often_as_its_index_is_below_a_constant():
    found = loop(constant='7', start='2')
    assert found.sent_bytes == {'all-reduce': 5 * ONCE}
    assert found.open_loops == 0


def test_a_loop_that_ends_by_its_data_counts_once_and_is_reported():
    text = (
        LOOP.replace('KNOWN', '').replace('START', '0').replace('constant(CONSTANT)', 'copy(%i.1)')
    )
    found = hlo.read(text, 8)
    assert found.sent_bytes == {'all-reduce': ONCE}
    assert found.open_loops == 1


# Communication


@pytest.mark.parametrize(
    ('opcode', 'attributes', 'sent'),
    [
        ('all-reduce', 'replica_groups={}, to_apply=%add', 2 * 7 / 8 * 400),
        ('all-reduce', 'replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add', 2 * 3 / 4 * 400),
        ('all-reduce', 'replica_groups=[4,2]<=[8], to_apply=%add', 2 * 1 / 2 * 400),
        ('all-reduce', 'replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add', 2 * 3 / 4 * 400),
        ('all-reduce', "replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add", 2 * 3 / 4 * 400),
        ('all-reduce', "replica_groups=mesh['a'=4,'b'=2] {'a','b'}, x", 2 * 7 / 8 * 400),
        ('all-reduce', "replica_groups=mesh['a'=8] {'a':(1)2}, x", 2 * 1 / 2 * 400),
        ('all-reduce', 'replica_groups={{0},{1}}, to_apply=%add', None),
        ('all-gather', 'replica_groups=[1,8]<=[8], dimensions={0}', 7 * 400),
        ('reduce-scatter', 'replica_groups=[1,8]<=[8], dimensions={0}', 7 / 8 * 400),
        ('all-to-all', 'replica_groups=[1,8]<=[8], dimensions={0}', 7 / 8 * 400),
        ('collective-permute', 'source_target_pairs={{0,1},{1,0}}', 400),
    ],
)
def test_what_each_device_of_a_ring_sends(opcode, attributes, sent):
    found = body_of([f'ROOT %out = f32[100]{{0}} {opcode}(%x), {attributes}'])
    assert found.sent_bytes == ({opcode: sent} if sent else {})


def test_what_starts_and_is_done_counts_once():
    found = body_of(
        [
            '%s = f32[100]{0} all-reduce-start(%x), replica_groups={}, to_apply=%add',
            '%g = (f32[25]{0}, f32[200]{0}) all-gather-start(%y), replica_groups={}',
            '%gathered = f32[200]{0} all-gather-done(%g)',
            'ROOT %out = f32[100]{0} all-reduce-done(%s)',
        ]
    )
    assert found.sent_bytes == {'all-reduce': 2 * 7 / 8 * 400, 'all-gather': 7 * 100}


def test_wrapped_collectives_count_once():
    wrapped = """%wrapped (p: f32[100]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  ROOT %r = f32[100]{0} collective-permute(%p), source_target_pairs={{0,1}}
}

ENTRY %main (x: f32[100]) -> f32[100] {
  %x = f32[100]{0} parameter(0)
  %s = ((f32[100]{0}), f32[100]{0}, s32[]) async-start(%x), calls=%wrapped
  %u = ((f32[100]{0}), f32[100]{0}, s32[]) async-update(%s), calls=%wrapped
  ROOT %out = f32[100]{0} async-done(%u), calls=%wrapped
}
"""
    assert hlo.read(wrapped, 8).sent_bytes == {'collective-permute': 400}


def test_the_dearest_branch_counts_but_for_one_that_calls_the_host():
    def text(last):
        branches = ''.join(
            f"""%branch.{i} (p: f32[100]) -> f32[100] {{
  %p.{i} = f32[100]{{0}} parameter(0)
  ROOT %r.{i} = f32[100]{{0}} all-reduce(%p.{i}), replica_groups={{{{{group}}}}}{attribute}
}}

"""
            for i, (group, attribute) in enumerate(
                [('0,1', ''), ('0,1,2,3', ''), ('0,1,2,3,4', last)]
            )
        )
        return branches + (
            'ENTRY %main (x: f32[100], i: s32[]) -> f32[100] {\n'
            '  %x = f32[100]{0} parameter(0)\n'
            '  %i = s32[] parameter(1)\n'
            '  ROOT %out = f32[100]{0} conditional(%i, %x, %x, %x), '
            'branch_computations={%branch.0, %branch.1, %branch.2}\n}\n'
        )

    assert hlo.read(text(''), 8).sent_bytes == {'all-reduce': 2 * 4 / 5 * 400}
    assert hlo.read(text(', is_host_transfer=true'), 8).sent_bytes == {
        'all-reduce': 2 * 3 / 4 * 400
    }


# Operations and traffic


def test_a_fused_convolution_on_a_tpu():
    """Of an image of 8x8 pixels and 13 channels to 8; what is in faster memory is no traffic."""
    text = """%fused (p: bf16[1,8,8,13], w: bf16[3,3,13,8]) -> f32[1,8,8,8] {
  %p = bf16[1,8,8,13]{2,1,3,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[3,3,13,8]{2,3,1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %c = f32[1,8,8,8]{3,0,2,1:T(1,128)} convolution(%p, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}

ENTRY %main (x: bf16[1,8,8,13], v: bf16[3,3,13,8]) -> f32[1,8,8,8] {
  %x = bf16[1,8,8,13]{2,1,3,0:T(8,128)(2,1)} parameter(0)
  %v = bf16[3,3,13,8]{2,3,1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %out = f32[1,8,8,8]{3,0,2,1:T(1,128)} fusion(%x, %v), kind=kOutput, calls=%fused
}
"""  # noqa: E501
    found = hlo.read(text, 1)
    assert found.flops == {'bf16': 2 * 8 * 8 * 8 * 3 * 3 * 13}
    assert found.hbm_bytes == 8 * 8 * (2 * 13 + 4 * 8)


@pytest.mark.parametrize(
    ('line', 'traffic'),
    [
        ('%s = f32[10]{0} slice(%x), slice={[0:10]}', 2 * 40),
        ('%s = (f32[100]{0:T(8)S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%x)', 400),
        ('%s = ((f32[100]{0}), f32[10]{0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:10]}', 40),
        ('%s = f32[100]{0} dynamic-update-slice(%x, %y, %i)', 2 * 100),
        ('%s = f32[100]{0} negate(%x)', 2 * 400),
        ('%s = f32[10,10]{1,0} bitcast(%x)', 0),
    ],
)
def test_traffic_is_what_memory_reads_and_writes(line, traffic):
    assert body_of([line]).hbm_bytes == traffic


def test_a_product_counts_what_it_contracts():
    text = """ENTRY %main (a: f32[3,5,7], b: f32[3,7,11]) -> f32[3,5,11] {
  %a = f32[3,5,7]{2,1,0} parameter(0)
  %b = f32[3,7,11]{2,1,0} parameter(1)
  ROOT %c = f32[3,5,11]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
}
"""  # noqa: E501
    assert hlo.read(text, 1).flops == {'f32': 2 * 3 * 5 * 7 * 11}


# A program that XLA made


STEPS = """
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
mesh = jax.make_mesh((8,), ('data',))
def loss(w, x):
    return jnp.mean((x @ w) ** 2)
def step(w, x):
    return w - jax.grad(loss)(w, x), None
def steps(w, x):
    return jax.lax.scan(step, w, x)[0]
def on(shape, *axes):
    sharding = jax.sharding.NamedSharding(mesh, P(*axes))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
print(jax.jit(steps).lower(on((16, 4)), on((5, 24, 16), None, 'data')).compile().as_text())
"""


def test_data_parallel_steps_on_eight_devices_sum_the_gradient_alone():
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '8'}
    done = subprocess.run(
        [sys.executable, '-c', STEPS],
        cwd=program.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = hlo.read(done.stdout, 8)
    assert found.sent_bytes == {'all-reduce': 5 * 2 * 7 * (4 * 16 * 4) // 8}
    # The product and its gradient with respect to w, of three rows a device.
    assert found.flops == {'f32': 5 * 2 * 2 * 3 * 16 * 4}
    assert found.open_loops == 0
