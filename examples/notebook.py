# %% [markdown]
# fastst in a notebook: train on walks, ask what decided. Any editor that knows `# %%` shows this file as cells.

# %%
import sys
import tempfile
from pathlib import Path

import fastst
from fastst.data.synthetic import synthetic_walks

people, epochs = (12, 1) if sys.argv[1:] == ["--quick"] else (40, 20)
out = Path(tempfile.mkdtemp()) / "run"

# %% Walks of your own: fastst.load_walks("walks.csv"). These are made up; only the knees tell the classes apart.
walks = synthetic_walks(people=people, walks_per_person=6, planted=["left_knee", "right_knee"])

# %%
run = fastst.fit(walks, out, epochs=epochs, on_epoch=lambda row: print(row["epoch"], row["loss"]))
print(run.summary["macro_f1"])

# %% Is it true that the kept edges decided?
print(run.explain().verdict)

# %% Of single walks
for row in run.predict(walks)[:3]:
    print(row["walk"], row["predicted"], row["probabilities"], row["edges"][:1])
edges, probability = run.graphs(walks)[0].edge_index()
print(edges.shape, probability.shape)
