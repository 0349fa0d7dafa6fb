"""Do measurements of cells look malignant or benign?"""

from __future__ import annotations

from trivium import Label, Models, Table, function

MEASURES = (
    "radius texture perimeter area smoothness compactness concavity concave_points symmetry "
    "fractal_dimension"
)
COLUMNS = [
    f"{before}{name.replace('_', ' ')}{after}"
    for before, after in (("mean ", ""), ("", " error"), ("worst ", ""))
    for name in MEASURES.split()
]


@function("table.classify")
async def classify(table: Table, models: Models) -> list[Label]:
    """Tell for each row of measured cell nuclei whether they look malignant or benign."""
    scores = await models.classifier.run(cells=table.numbers(COLUMNS))
    return [scores[row].top(1, labels=models.labels)[0] for row in range(len(table))]
