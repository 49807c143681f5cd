#!/usr/bin/env python3
"""Checks that what a run leaves for other tools can be read, and has the numbers of its results."""
import csv
import glob
import json
import math
import sys
import xml.etree.ElementTree as ElementTree

folder = sys.argv[1]
documents = {}
for path in glob.glob(f"{folder}/*.json"):
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    if "servebench" in document:
        documents[document["servebench"]["case"]] = (path, document)
assert documents, f"{folder} has no results"


def load(name):
    with open(f"{folder}/{name}", encoding="utf-8") as file:
        return json.load(file)


with open(f"{folder}/results.csv", encoding="utf-8", newline="") as file:
    rows = {row["case"]: row for row in csv.DictReader(file)}
metrics = load("bmf.json")
smaller, bigger = load("smaller-is-better.json"), load("bigger-is-better.json")
junit = {case.get("name"): case for case in ElementTree.parse(f"{folder}/junit.xml").iter("testcase")}
with open(f"{folder}/summary.md", encoding="utf-8") as file:
    summary = file.read()
assert rows.keys() == metrics.keys() == junit.keys() == documents.keys(), f"not the same cases in {folder}"

for case, (path, document) in documents.items():
    ttft, rate = document["mean_ttft_ms"], document["output_throughput"]
    properties = {p.get("name"): float(p.get("value")) for p in junit[case].iter("property")}
    tracked = {entry["name"]: entry["value"] for entry in smaller + bigger}
    for known in (
        float(rows[case]["ttft_mean_ms"]),
        metrics[case]["ttft-mean-ms"]["value"],
        properties["ttft_mean_ms"],
        tracked[f"{case} ttft.mean"],
    ):
        assert known == ttft, f"{case}: {known} is not {ttft}"
    for known in (
        float(rows[case]["output_throughput_tok_per_s"]),
        metrics[case]["output-throughput-tok-per-s"]["value"],
        properties["output_throughput_tok_per_s"],
        tracked[f"{case} output_throughput"],
    ):
        assert known == rate, f"{case}: {known} is not {rate}"
    assert all(math.isfinite(value) for value in tracked.values())
    assert f"| `{case}` |" in summary and f"| {rate:.2f} |" in summary
    with open(path.removesuffix(".json") + ".records.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    completed = sum(record["failure"] is None and not record["warm_up"] for record in records)
    assert completed == document["completed"], f"{case}: {completed} records"
print(f"every format has the {len(documents)} cases")
