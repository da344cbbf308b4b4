"""The nightly job: overlap, entropy and exposure of a day of stored decision traces.

Data flows one way, and a module imports only from those above it in this list::

    tables.py       every column of every table, with its meaning; the contract
    lines.py        stored traces, from files or PostgreSQL, as lines of JSON
    snapshot.py     lines -> Parquet partitions ``day=YYYY-MM-DD/``, read by ``sql/decisions.sql``
    overlap.py      Jaccard overlap of users' lists, with its interval
    entropy.py      entropy of what was served, corrected and with its interval
    outcomes.py     click-through by variant, and of personalised against other items
    engines.py      runs the statements of ``sql/`` on DuckDB; ``spark_engine.py`` on Spark
    job.py          a day of snapshots -> its tables
    warehouse.py    tables -> a DuckDB file, PostgreSQL or Parquet; a day is replaced whole
    publish.py      tables -> Pushgateway and log lines
    report/         tables -> one HTML file
"""
