import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from otel_personalization.daily.rollup import ByCell

CELLS = st.integers(1, 9)


@given(st.lists(CELLS), st.sets(CELLS))
def test_rows_of_cells_are_found_whether_a_cell_has_any_or_not(of_rows, cells):
    by_cell = ByCell(pa.table({"cell": pa.array(of_rows, pa.int64())}))
    expected = [row for cell in sorted(cells) for row in np.flatnonzero(np.equal(of_rows, cell))]
    assert by_cell.rows(tuple(sorted(cells))).tolist() == expected
