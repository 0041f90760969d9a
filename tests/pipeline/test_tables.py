"""Row types and the schemas that follow from them: the files of a run begun with an earlier release
must stay readable.
"""

import pyarrow as pa

from variational_reasoning.pipeline.tables import RHO_TERMS, TABLES


def columns(table: str) -> dict[str, tuple[str, bool]]:
    return {field.name: (str(field.type), field.nullable) for field in TABLES[table].columns}


def test_ids_types_and_nulls_of_a_table():
    assert columns("trace_logps") == {
        "question_id": ("string", False),
        "trace_id": ("int32", False),
        "trace_logp": ("double", False),
        "trace_tokens": ("int32", False),
        "answer_logp": ("double", True),
        "answer_tokens": ("int32", True),
        "temperature": ("double", False),
        "sampling_temperature": ("double", True),
        "trace_logp_at_sampling": ("double", True),
        "answer_logp_at_sampling": ("double", True),
        "trace_token_logps": ("list<element: float not null>", True),
        "answer_token_logps": ("list<element: float not null>", True),
        "early_answer_logp": ("double", True),
        "bare_answer_logp": ("double", True),
    }
    assert TABLES["trace_logps"].not_required == {
        "sampling_temperature",
        "trace_logp_at_sampling",
        "answer_logp_at_sampling",
        "trace_token_logps",
        "answer_token_logps",
        "early_answer_logp",
        "bare_answer_logp",
    }


def test_columns_that_are_longer_than_32_bits_and_lists_of_ids():
    ids = pa.list_(pa.field("element", pa.int32(), nullable=False))
    for table in ("traces", "answers", "samples", "evals"):
        schema = TABLES[table].columns
        assert schema.field("seed").type == pa.int64()
        assert schema.field("token_ids").type == ids


def test_keys_are_the_first_columns():
    keys = {name: schema.key for name, schema in TABLES.items()}
    assert keys == {
        "questions": ("question_id",),
        "traces": ("question_id", "trace_id"),
        "steps": ("question_id", "step"),
        "step_clusters": ("question_id", "step"),
        "trace_logps": ("question_id", "trace_id"),
        "answers": ("question_id", "trace_id", "answer_id"),
        "verdicts": ("question_id", "trace_id", "answer_id"),
        "golds": ("question_id",),
        "reasoning": ("question_id",),
        "train": ("question_id", "source"),
        "samples": ("question_id", "answer_id"),
        "evals": ("question_id", "answer_id"),
        "controls": ("question_id", "answer_id", "control"),
        "control_verdicts": ("question_id", "answer_id", "control"),
        "abstract": ("question_id", "trace_id"),
    }
    for name, schema in TABLES.items():
        assert tuple(schema.columns.names[: len(schema.key)]) == schema.key, name


def test_terms_of_rho_are_columns_of_a_train_row():
    found = columns("train")
    assert all(found[name][1] for name in RHO_TERMS)
