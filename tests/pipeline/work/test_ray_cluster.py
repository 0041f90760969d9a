"""launcher=ray on a real cluster of two nodes, local processes, one of which is killed in the
middle.
"""

import json
from pathlib import Path

from tests.pipeline.test_sample import shard_bytes, well_formed_traces
from tests.pipeline.test_vllm import infer
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.rows import read_rows

DRIVER = """
import json, subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

def main():
    path, folder, rest = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray = ["launcher=ray", f"ray_address={cluster.address}"]
    with subprocess.Popen([sys.executable, "scripts/sample_traces.py", path, *ray]) as process:
        while process.poll() is None and len(list(folder.glob("shard-*.parquet"))) < 6:
            time.sleep(0.02)
        cluster.remove_node(other, allow_graceful=False)
        print("shards when the node was killed:", len(list(folder.glob("shard-*.parquet"))), flush=True)
        assert process.wait(timeout=200) == 0
    for command in rest:
        subprocess.run([sys.executable, *command, *ray], check=True, timeout=200)
    cluster.shutdown()

if __name__ == "__main__":
    main()
"""


def test_a_node_is_lost_and_every_stage_runs_on_the_cluster(make_run, infer_python, tmp_path):
    settings = {"sampling": {"questions_per_shard": 1, "max_trace_tokens": 150}}
    whole, path, others = (
        make_run(num_questions=24, name=name, **settings) for name in ("whole", "ray", "others")
    )
    infer(infer_python, "scripts/sample_traces.py", str(whole))
    wanted = shard_bytes(load_config(whole).folder("traces"))
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    well_formed_traces(load_config(others))
    rest = [
        ["scripts/score_traces.py", str(others), "model=reasoner", "scoring.questions_per_shard=8"]
    ]
    rest += [["scripts/sample_answers.py", str(others), "sampling.questions_per_shard=8"]]
    rest += [
        [
            "scripts/verify_answers.py",
            str(others),
            "verify.workers=1",
            "verify.questions_per_shard=8",
        ]
    ]
    folder = load_config(path).folder("traces")
    done = infer(infer_python, str(script), str(path), str(folder), json.dumps(rest))
    [at_the_kill] = [line for line in done.stdout.splitlines() if line.startswith("shards when")]
    assert int(at_the_kill.rpartition(" ")[2]) < 24
    assert "Ray cluster with 2 nodes" in done.stdout and "72 rows in 24 shards" in done.stdout
    assert shard_bytes(folder) == wanted
    tables = {"trace_logps/reasoner": 48, "answers": 96, "verdicts": 96}
    for name, num_rows in tables.items():
        assert len(read_rows(load_config(others).folder(name), Path(name).parts[0])) == num_rows
