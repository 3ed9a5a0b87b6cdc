"""The block at the top of profiles/slurm: mistakes in it, and what the cluster does not have."""

import pytest
from snakemake_executor_plugin_slurm.validation import get_forbidden_slurm_options

from longscale.demand import Cluster
from longscale.errors import LongscaleError
from longscale.slurm_block import Block, Nodes, check_block, check_extra, read_nodes

# As `sinfo --exact --format=%P|%m|%c|%l|%G` prints it.
SINFO = """\
cpu*|192000|48|7-00:00:00|(null)
cpu*|768000|96|7-00:00:00|(null)
gpu|500000|32|2-00:00:00|gpu:a100:4(S:0-1)
gpu|500000|64|2-00:00:00|gpu:h200:8,shard:64
short|192000|48|4:00:00|(null)
old|128000|16|infinite|gpu:2
"""
SAID = {
    "gpus": 1, "memory_mb": 180000, "cores": 16, "hours": 48, "slower": 1.0,
    "cpu_partition": "cpu", "gpu_partition": "gpu", "gpu_type": "",
}  # fmt: skip


def block(**changed):
    """What the profile's block arrives as."""
    return f"'{'|'.join(f'{name}={value}' for name, value in (SAID | changed).items())}'"


def test_what_the_block_says():
    read = Block.read(block(hours=1.5, slower="2"))
    assert read.cluster == Cluster(gpus=1, memory_mb=180000, minutes=90, slowness=2)
    assert read.gpu_place == {"slurm_partition": "gpu"}
    assert Block.read(block(gpus=0)).gpu_place == {}
    other = Block.read(block(gpu_partition="", gpu_type="h200"))
    assert other.gpu_place == {"gpu_model": "h200"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpus", "one"), ("gpus", -1), ("gpus", ""), ("memory_mb", "180G"), ("memory_mb", 0),
        ("cores", 0), ("hours", "None"), ("hours", "inf"), ("hours", 0), ("slower", "nan"),
        ("hours", 172800),  # what YAML makes of 48:00:00
        ("slower", "fast"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_block_is_one_sentence(name, value):
    with pytest.raises(LongscaleError, match=f"^{name} at the top .* is '{value}'; a .* expected$"):
        Block.read(block(**{name: value}))


def test_a_profile_of_another_version_is_one_sentence():
    with pytest.raises(LongscaleError, match="does not say gpus; take that line from this version"):
        Block.read("'1 180000 2880 1.0 gpu '")


def test_what_sinfo_tells():
    nodes, default = read_nodes(SINFO)
    assert default == "cpu"
    assert nodes[0] == Nodes("cpu", 192000, 48, 7 * 24 * 60, {})
    assert nodes[2].gpus == {"a100": 4}
    assert nodes[3].gpus == {"h200": 8}
    assert nodes[4].minutes == 240
    assert nodes[5] == Nodes("old", 128000, 16, float("inf"), {"": 2})
    assert read_nodes("debug|1000+|2|30:00|\n") == ([Nodes("debug", 1000, 2, 30, {})], "")


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"gpu_type": "h200", "gpus": 8}, {"cpu_partition": ""}, {"cores": 64},
        {"cpu_partition": "short", "hours": 4}, {"gpus": 0, "gpu_partition": "nope"},
        {"gpu_partition": "old", "memory_mb": 9000},
    ],
)  # fmt: skip
def test_a_block_that_the_cluster_can_serve(changed):
    check_block(Block.read(block(**{"cores": 8} | changed)), SINFO)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cpu_partition": "cpus"}, r"cpu_partition .* is 'cpus', .*cpu, gpu, short.*mean 'cpu'\?"),
        (
            {"gpu_partition": "nope"},
            r"gpu_partition .* is 'nope', .* does not have \(it has: cpu, gpu",
        ),
        ({"gpu_partition": ""}, "gpus .* is 1, but partition 'cpu' has none"),
        ({"gpu_type": "v100"}, r"gpu_type .* is 'v100', which partition 'gpu' .*a100, h200\)"),
        ({"gpu_type": "gpu:a100"}, "gpu_type .* is 'gpu:a100', which"),
        (
            {"gpu_partition": "old", "gpu_type": "a100", "memory_mb": 1},
            "gpu_type .*GPUs without a type",
        ),
        ({"gpu_type": "a100", "gpus": 5}, "gpus .* is 5, but a node .* has at most 4"),
        ({"memory_mb": 600000}, "memory_mb .* is 600000, but partition 'gpu' has at most 500000"),
        ({"cores": 65}, "cores .* is 65, but partition 'gpu' has at most 64"),
        ({"hours": 49}, "hours .* is 49, but partition 'gpu' has at most 48"),
    ],
)
def test_what_the_cluster_does_not_have_is_told_before_the_first_job(changed, words):
    with pytest.raises(LongscaleError, match=f"^{words}"):
        check_block(Block.read(block(**changed)), SINFO)


def test_a_cluster_without_a_default_partition():
    with pytest.raises(LongscaleError, match=r"cpu_partition .* is empty, but the cluster has no"):
        check_block(Block.read(block(cpu_partition="")), SINFO.replace("*", ""))


def test_options_that_the_plugin_would_hang_on_are_refused():
    reserved = get_forbidden_slurm_options()
    check_extra("--reservation=course --nice=10", reserved)
    for extra in ("--constraint=ib", "-C ib", "--nice=1 --qos=long", "-t 10", "--mem=3G"):
        with pytest.raises(LongscaleError, match=r"^extra at the top .* but Snakemake itself"):
            check_extra(extra, reserved)
