"""TREC questions: 5 952 English questions by the kind of answer that they want, 6 classes, the last 500 the
official test split.

Origin: Li and Roth 2002, "Learning Question Classifiers", COLING, https://cogcomp.seas.upenn.edu/Data/QA/QC/.
No explicit license; distributed for research.
"""

from pathlib import Path

import numpy as np

from sweeps.data.dataset import RawData
from sweeps.data.readers.parquet import folder_of, labels_of, read_table
from sweeps.data.registry import Yields, dataset

CLASSES = ("abbreviation", "entity", "description", "human", "location", "number")
FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")
FOLDERS = ("data", ".")
HOW = (
    f"Get {' and '.join(FILES)} with the columns text and label, made of train_5500.label and TREC_10.label"
    " from https://cogcomp.seas.upenn.edu/Data/QA/QC/ (or of https://huggingface.co/datasets/CogComp/trec,"
    " coarse_label as label), put them in DIR/trec, and pass --data-dir DIR or set LSCAL_DATA=DIR."
)


@dataset(Yields("tokens"))
def trec(data_dir: Path | None) -> RawData:
    """The texts and coarse labels of the two parquet files in `data_dir/trec` or `data_dir`, there in `data`
    or the folder itself.

    Of the 5452 official training rows, 71 repeat an earlier text and 10 a text of the test split. They are
    removed, so that no question is both learnt and asked: 5371 stay. The 500 official test rows are all kept.
    ABBR is rare: 9 of them in the test split.
    """
    folder = folder_of(data_dir, "trec", FILES, FOLDERS, HOW)
    tables = [read_table(folder / name, ("text", "label"), HOW) for name in FILES]
    texts, test_texts = (table["text"].to_pylist() for table in tables)
    labels, test_labels = (
        labels_of(table, folder / name, len(CLASSES), HOW) for table, name in zip(tables, FILES, strict=True)
    )
    first = {text: row for row, text in reversed([*enumerate(texts)])}
    asked = set(test_texts)
    kept = sorted(row for text, row in first.items() if text not in asked)
    return RawData(
        inputs=np.array([*(texts[row] for row in kept), *test_texts]),
        labels=np.concatenate([labels[kept], test_labels]),
        classes=CLASSES,
        test=len(test_labels),
        where=str(folder),
    )
