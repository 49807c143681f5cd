#!/usr/bin/env python3
"""Checks that result files parse and hold the fields that scripts written for MAX and vLLM read."""
import copy
import json
import sys

import jsonschema

SCALARS = """date backend model_id tokenizer_id dataset_name num_prompts request_rate duration completed
total_input_tokens total_output_tokens request_throughput input_throughput output_throughput
peak_gpu_memory_mib available_gpu_memory_mib gpu_utilization failed request_goodput
total_token_throughput max_concurrency burstiness servebench""".split()
LATENCIES = [
    f"{statistic}_{latency}_ms"
    for statistic in ("mean", "median", "std", "p99")
    for latency in ("ttft", "tpot", "itl", "e2el")
]
ARRAYS = "input_lens output_lens ttfts itls generated_texts errors".split()

with open("src/report/schema.json", encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
expected, paths = int(sys.argv[1]), sys.argv[2:]
assert len(paths) == expected, f"{expected} cases left {len(paths)} results: {paths}"
for path in paths:
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    faults = [f"{list(fault.absolute_path)}: {fault.message[:200]}" for fault in validator.iter_errors(result)]
    assert not faults, f"{path} is not as the schema has it: {faults}"
    wrong = copy.deepcopy(result)
    wrong["request_rate"] = "fast"
    assert not validator.is_valid(wrong), "the schema refuses what is no result"
    missing = [key for key in SCALARS + LATENCIES + ARRAYS if key not in result]
    assert not missing, f"{path} has no {missing}"
    assert result["completed"] + result["failed"] == len(result["ttfts"]), path
    assert result["servebench"]["schema_version"] == 1, path
    for key in LATENCIES:
        assert result[key] is not None and 0 <= result[key], f"{path}: {key} = {result[key]}"
print(f"{len(paths)} results hold every field")
