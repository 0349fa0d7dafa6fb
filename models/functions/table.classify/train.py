# /// script
# dependencies = ["scikit-learn==1.9.1", "onnx", "msgspec"]
# ///
"""How are the classifiers trained, chosen and judged?

`uv run train.py forest logistic` prints what is known of all and writes those that ship.

Wisconsin's breast cancer data as scikit-learn packages them: 569 rows of 30 measurements, split
60/20/20 by class with seed 2026. Of each family the one with the least log loss on the validation
part is chosen, and scored on the test part, once. Between families the simplest ships, unless
another is surely better on the validation part: a rule that was written after a first run had
shown the test scores, too. By the least log loss alone the MLP would ship, which ties there.
Graphs are plain ONNX, drawn by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
SEED = 2026
CLIP = 1e-3
LABELS = ("malignant", "benign")  # as the data number them


class Student:
    """A small model taught the forest's probabilities, in the place of the labels."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, rows: Any, teacher: Any) -> Student:
        """Learn the log odds that the teacher gives."""
        odds = np.clip(teacher, CLIP, 1 - CLIP)
        self.model.fit(rows, np.log(odds / (1 - odds)))
        return self

    def predict_proba(self, rows: Any) -> Any:
        """Return the probabilities of both classes."""
        benign = 1 / (1 + np.exp(-self.model.predict(rows)))
        return np.stack([1 - benign, benign], axis=1)


def candidates() -> dict[str, list[Any]]:
    """Return the models of each family, of which one is chosen."""

    def scaled(model: Any) -> Any:
        return make_pipeline(StandardScaler(), model)

    small = {"solver": "lbfgs", "max_iter": 5000, "random_state": SEED}
    nets = [(h, a) for h in (4, 8, 16) for a in (0.1, 1.0, 10.0, 100.0)]
    return {
        "forest": [
            RandomForestClassifier(200, max_features=part, min_samples_leaf=leaf, random_state=SEED)
            for part in (2, 5, 10)
            for leaf in (1, 2, 4)
        ],
        "logistic": [
            scaled(LogisticRegression(C=c, max_iter=5000)) for c in 10.0 ** np.arange(-3, 3)
        ],
        "mlp": [scaled(MLPClassifier(hidden_layer_sizes=(h,), alpha=a, **small)) for h, a in nets],
        "distilled": [
            Student(scaled(MLPRegressor(hidden_layer_sizes=(h,), alpha=a, **small)))
            for h, a in nets
        ],
    }


def interval(right: Any) -> str:
    """Return the mean with a bootstrap's 95 % interval."""
    picks = np.random.default_rng(0).integers(0, len(right), (2000, len(right)))
    low, high = np.quantile(right[picks].mean(1), (0.025, 0.975))
    return f"{right.mean():.3f} ({low:.3f} to {high:.3f})"


def tensor(values: Any, name: str, kind: type = np.float32) -> onnx.TensorProto:
    """Return a constant."""
    return numpy_helper.from_array(np.asarray(values, kind), name)


def graph(nodes: list[Any], weights: list[Any]) -> onnx.ModelProto:
    """Return a model from rows of 30 measurements to the probabilities of the two labels."""
    made = helper.make_graph(
        nodes,
        "table.classify",
        [helper.make_tensor_value_info("cells", TensorProto.FLOAT, ["rows", 30])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 2])],
        weights,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="trivium")
    onnx.checker.check_model(model)
    return model


def both(benign: str) -> list[Any]:
    """Return the nodes that put the other label's probability before that of `benign`."""
    return [
        helper.make_node("Sub", ["one", benign], ["malignant"]),
        helper.make_node("Concat", ["malignant", benign], ["scores"], axis=1),
    ]


def trees(forest: Any) -> onnx.ModelProto:
    """Draw a forest: each leaf gives its share of the benign rows it was trained on."""
    parts = "treeids nodeids featureids values modes truenodeids falsenodeids"
    nodes: dict[str, list[Any]] = {f"nodes_{part}": [] for part in parts.split()}
    nodes |= {f"target_{part}": [] for part in ("treeids", "nodeids", "ids", "weights")}
    for number, one in enumerate(forest.estimators_):
        tree = one.tree_
        for node in range(tree.node_count):
            leaf = tree.children_left[node] == -1
            # Cells are float32 and scikit-learn's bounds are not: no cell lies between the two.
            bound = np.float32(tree.threshold[node])
            if bound > tree.threshold[node]:
                bound = np.nextafter(bound, np.float32(-np.inf))
            nodes["nodes_treeids"].append(number)
            nodes["nodes_nodeids"].append(node)
            nodes["nodes_featureids"].append(0 if leaf else int(tree.feature[node]))
            nodes["nodes_values"].append(0.0 if leaf else float(bound))
            nodes["nodes_modes"].append("LEAF" if leaf else "BRANCH_LEQ")
            nodes["nodes_truenodeids"].append(0 if leaf else int(tree.children_left[node]))
            nodes["nodes_falsenodeids"].append(0 if leaf else int(tree.children_right[node]))
            if leaf:
                share = tree.value[node][0]
                nodes["target_treeids"].append(number)
                nodes["target_nodeids"].append(node)
                nodes["target_ids"].append(0)
                nodes["target_weights"].append(float(share[1] / share.sum()))
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["cells"],
        ["benign"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="AVERAGE",
        post_transform="NONE",
        **nodes,
    )
    return graph([ensemble, *both("benign")], [tensor([1.0], "one")])


def layers(chosen: Any) -> onnx.ModelProto:
    """Draw a scaled logistic model or network."""
    model = chosen.model if isinstance(chosen, Student) else chosen
    scaler, last = model[0], model[-1]
    # The scale goes into the first layer's weights.
    if isinstance(last, LogisticRegression):
        weights, biases = [last.coef_.T], [last.intercept_]
    else:
        weights, biases = list(last.coefs_), list(last.intercepts_)
    weights[0] = weights[0] / scaler.scale_[:, None]
    biases[0] = biases[0] - scaler.mean_ @ weights[0]
    nodes, constants, x = [], [tensor([1.0], "one")], "cells"
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants += [tensor(weight, f"weight.{number}"), tensor(bias, f"bias.{number}")]
        given = [x, f"weight.{number}", f"bias.{number}"]
        x = f"layer.{number}"
        nodes.append(helper.make_node("Gemm", given, [x]))
        if number < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"]))
            x += ".relu"
    nodes.append(helper.make_node("Sigmoid", [x], ["benign"]))
    return graph([*nodes, *both("benign")], constants)


def text(names: list[str], rows: Any) -> str:
    """Return rows as comma-separated values."""
    lines = [",".join(names), *(",".join(f"{cell:.7g}" for cell in row) for row in rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, choose, judge and write."""
    data = load_breast_cancer()
    names = [str(name) for name in data.feature_names]
    rows, labels = data.data.astype(np.float32), data.target
    rest, test, rest_y, test_y = train_test_split(
        rows, labels, test_size=0.2, stratify=labels, random_state=SEED
    )
    train, valid, train_y, valid_y = train_test_split(
        rest, rest_y, test_size=0.25, stratify=rest_y, random_state=SEED
    )
    print(f"rows: {len(train)} train, {len(valid)} validation, {len(test)} test")
    found: dict[str, Any] = {}
    teacher: Any = None
    for family, models in candidates().items():
        losses = []
        for model in models:
            model.fit(train, teacher if isinstance(model, Student) else train_y)
            losses.append(log_loss(valid_y, model.predict_proba(valid)))
        best = models[int(np.argmin(losses))]
        found[family] = best
        if family == "forest":
            # Out of bag: what a tree says of rows it has not seen.
            again = RandomForestClassifier(**{**best.get_params(), "oob_score": True})
            teacher = again.fit(train, train_y).oob_decision_function_[:, 1]
        right = (best.predict_proba(valid).argmax(1) == valid_y).mean()
        print(f"{family:10} validation: log loss {min(losses):.4f}, accuracy {right:.3f}")
    for family in ("mlp", "distilled", "forest"):
        losses = [
            -np.log(found[each].predict_proba(valid)[np.arange(len(valid)), valid_y] + 1e-9)
            for each in (family, "logistic")
        ]
        said = interval(losses[0] - losses[1])
        print(f"{family:10} validation: log loss {said} above the logistic model's")
    for family, best in found.items():
        given = best.predict_proba(test)
        loss, right = log_loss(test_y, given), given.argmax(1) == test_y
        print(f"{family:10} test: accuracy {interval(right)}, log loss {loss:.4f}")
    for family, best in found.items():
        model = trees(best) if family == "forest" else layers(best)
        raw = model.SerializeToString(deterministic=True)
        session = __import__("onnxruntime").InferenceSession(raw)
        apart = np.abs(session.run(None, {"cells": test})[0] - best.predict_proba(test)).max()
        print(f"{family:10} {len(raw)} bytes, {apart:.1e} from scikit-learn")
        if family in sys.argv[1:]:
            (HERE / f"{family}.onnx").write_bytes(raw)
    lines = [
        msgspec.json.encode({"inputs": {"table": text(names, [row])}, "output": LABELS[label]})
        for row, label in zip(test, test_y, strict=True)
    ]
    (HERE / "held-out.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (HERE / "cells.csv").write_text(text(names, test[:8]))
    (HERE / "cell.csv").write_text(text(names, test[:1]))
    (HERE / "labels.txt").write_text("\n".join(LABELS) + "\n")
    print([LABELS[each] for each in test_y[:8]], names)


if __name__ == "__main__":
    main()
