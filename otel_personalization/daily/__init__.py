"""The nightly job: overlap, entropy and exposure of a day of stored decision traces.

Data flows one way, and a module imports only from those above it in this list::

    threads.py         two threads, for what is made of many things
    arrays.py          orders and runs of numbers
    tables.py          every column of every table, with its meaning; the contract
    sql/               the statements, a file each
    postgres.py        where a PostgreSQL is, and what of it may be shown
    files.py           locks, files that are on the disk, folders of days
    lines.py           stored traces as lines of JSON, from files
    postgres_lines.py  the same from PostgreSQL
    decisions.py       what those lines say of decisions, by ``sql/decisions.sql``
    manifest.py        the snapshots that there are, and whether they are whole
    snapshot.py        decisions -> snapshots: Parquet partitions ``day=YYYY-MM-DD/``
    row_groups.py      what is read of those partitions without an engine
    served.py          what was served, counted from them
    source_events.py   what sources found, in the order of time
    shared_items.py    how many items lists share, of all pairs at once
    overlap_interval.py  the interval of a mean over pairs of users
    overlap.py         Jaccard overlap of users' lists, with its interval
    entropy.py         entropy of what was served, corrected and with its interval
    rollup.py          which rows there are, and which of the finest cells are in each
    measures.py        the columns of a row, from what was counted of its cells
    sources.py         candidate sources, and how long they found nothing
    outcomes.py        click-through by variant, and of personalised against other items
    engines.py         runs the statements of ``sql/``, in DuckDB
    spark.py           the same in Spark
    job.py             snapshots -> the rows of a day
    warehouse/         rows -> a DuckDB file, PostgreSQL or Parquet; a day is replaced whole
    figures.py         rows -> what is told of a day, and log lines
    publish.py         figures -> Pushgateway
    report/            rows -> one HTML file
    night.py           a run of all of that
    signals.py         SIGTERM and Ctrl-C end a command as an exit does
    commands.py        ``snapshot`` and ``daily`` on the command line
"""
