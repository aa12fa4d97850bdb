"""Every limit of the service, each derived in a comment. Nothing in the data path grows past one of these.

Memory of one worker at these limits, besides window state (which has its own budget, `memory`):
    prefetch 32 MiB + one fetch response 16 MiB + unscored values 16 MiB + one batch of at most the prefetch 32 MiB + waiting
    rows 65,536 x ~600 bytes = 38 MiB + uncommitted rows 131,072 x ~150 bytes = 19 MiB + producer queue 64 MiB
    =  at most about 220 MiB; while windows are restored, 32 MiB of their changelog in place of rows.
"""

# One batch. Decode, window, model and encode cost 2.4 us an event in batches of 500, 1.7 us in 1,000, 1.5 us in 2,000: numpy
# and the model are called that much less often.
ROWS_PER_BATCH_MAX = 2048

# A run of the model shorter than this is done by the worker itself: two thread switches on busy cores cost as much.
HAND_OVER_S = 0.001

# A run of the model that takes longer than this, and RUN_TIMES_MAX times what its rows took before, hangs: nothing can end it
# but a new process. The largest batch of a model of 50 ms a row takes 100 s, and must not count as one.
RUN_STUCK_S = 60.0
RUN_TIMES_MAX = 10

# Rows that are refused (by the engine, by the broker) are tried again after a pause that doubles: short enough not to be noticed
# when the first attempt helps, long enough at last that nothing wears out.
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
# Meanwhile the worker still answers its group and a stop so often.
BACKOFF_POLL_S = 0.1

# Trying a model on made-up rows at start takes some 60 runs of at most 8 rows for each kind of rows: about a millisecond for a
# small model. A large one is not tried on a further kind after this long; warming its largest batch takes longer.
PROBE_S = 2.0

# Objects of Python's youngest generation before its collector looks for cycles: several batches with their events, keys and
# outputs (about 12 objects a row), so that it looks only when something does pile up.
YOUNG_OBJECTS_MAX = 100_000

# Polled but not yet scored: a few batches keep a pool of a few threads fed; more would only add waiting time.
ROWS_UNSCORED_MAX = 4 * ROWS_PER_BATCH_MAX

# Values of those rows: large records fill this long before the rows run out. One batch may pass it, since a poll is asked
# for rows; the client's prefetch below bounds that batch.
BYTES_UNSCORED_MAX = 16 * 1024 * 1024

# Encoded and waiting for the producer, which a commit keeps busy for 20 to 60 ms, longer on busy processors: the room is
# what a fast flow gives meanwhile. With a quarter of it the worker stood still at the end of each commit (a fifth slower).
ROWS_WAITING_MAX = 32 * ROWS_PER_BATCH_MAX

# Produced but not yet committed: 100 ms at more than a million rows a second.
ROWS_UNCOMMITTED_MAX = 64 * ROWS_PER_BATCH_MAX

# Commit by age: caught up, readers wait for the commit, so it comes early; behind, fewer commits cost less.
COMMIT_AGE_BEHIND_S = 0.1
# At-least-once: no reader waits for a commit, but while one runs the outputs wait, the longer the more rows it covers. A
# crash repeats at most this much.
COMMIT_AGE_AT_LEAST_ONCE_S = 0.5
# ... unless nothing has come for this long: then a commit holds nobody up, and nothing is left to repeat.
COMMIT_QUIET_S = 0.1
COMMIT_ROWS_MAX = ROWS_UNCOMMITTED_MAX // 2

# Rows of one input and partition that lie ready while another input has not been read as far: some 5 MiB. Beyond, the input
# that is ahead waits in its topic; pausing throws the prefetch away, so it is done rarely.
JOIN_ROWS_AHEAD_MAX = 32 * ROWS_PER_BATCH_MAX

# Events of a partition that wait for what a join may still show them: 100 bytes each, so some 100 MiB beside the windows.
JOIN_ROWS_WAITING_MAX = 1_000_000
# Traces of such events in memory: 350 bytes each, so 35 MiB a partition. Beyond, an event waits without its own.
JOIN_TRACES_WAITING_MAX = 100_000

# Client queues. librdkafka's own defaults (64 MiB in, 1 GiB out) would decide the memory of the process.
PREFETCH_KIB_MAX = 32 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024
PRODUCER_QUEUE_KIB_MAX = 64 * 1024
PRODUCER_QUEUE_ROWS_MAX = 2 * ROWS_UNCOMMITTED_MAX

# A model or producer that stays full longer than this makes us pause the partitions: pausing throws the prefetch
# away, so short stalls are waited out. Resumed when half of the room is free again.
STALL_BEFORE_PAUSE_S = 0.5

# Keys are identifiers: Kafka itself has no limit, memory per key has.
KEY_BYTES_MAX = 512

# A partition that should have unread records and gives none (its broker is away) holds others back no longer than this.
ALIGN_WAIT_S = 30.0

# What a record grows by on its way through an internal topic: its old key, a header of 40 bytes, the new key, framing.
REKEY_ROOM_BYTES = 2 * KEY_BYTES_MAX + 1024

# One line, or one cell, of a file that is fed. Records are at most 1 MiB as a rule; what is longer is no text file, or a quote
# that is not closed.
FEED_LINE_CHARS_MAX = 16 * 1024 * 1024

# Dead letters keep this much of a record; the rest is a digest.
DEAD_LETTER_BYTES_MAX = 64 * 1024

# A partition that has been at its end for so long, with nothing under way, commits the place there: once per rest, so that
# tools which compare it to the end of the log show no lag.
REST_S = 5.0

# What a topic takes where its configuration may not be read: the default of Kafka's brokers.
MESSAGE_BYTES_DEFAULT = 1_048_588

# What a broker counts beside key, value and headers of a record: 61 bytes before a batch, at most 36 before a record, and
# spare. Measured with a limit of 1,000: a record of 921 bytes with a key of one passed, one of 931 did not.
MESSAGE_ROOM_BYTES = 128
# The same for a header: two lengths of at most five bytes.
HEADER_ROOM_BYTES = 10

# Headers of a dead letter without its detail: names 26 bytes each, topic 249, digest 71, numbers; in 1 KiB with the frame.
LETTER_BYTES_MIN = 1024

# What the brokers refuse (a record too large, a right that is missing) they refuse until somebody changes something: half a
# minute for that, with the pauses above (0.1 s, 0.2 s, ... 6.4 s, 10 s, 10 s), then the process ends and says why.
REFUSALS_MAX = 10

# A topic that is not there is an answer of the brokers, which the client believes after so long: sooner than its records
# time out, which would be none.
TOPIC_UNKNOWN_AFTER_S = 5.0

# A batch of records for one partition, as librdkafka has it. Topics that take less make it smaller.
PRODUCER_BATCH_BYTES_MAX = 1_000_000

# ... and this much of its headers: names, values and framing. They are for tracing and routing, not for data.
DEAD_LETTER_HEADERS_BYTES_MAX = 16 * 1024

# One changelog message. Brokers accept 1 MiB by default; records of a transaction add headers.
CHANGELOG_BYTES_MAX = 900 * 1024

# What a message of the changelog has beside its rows and the fingerprint: offsets of inputs, numbers, lengths.
CHANGELOG_FRAME_BYTES = 1024

# The same before compression, when it is read back: a part of a commit, or one row that waits with the largest record there may
# be (64 MiB), and what is known of the source's partitions. What claims to be larger is not inflated.
CHANGELOG_PLAIN_BYTES_MAX = 72 * 1024 * 1024

# Partitions of a source that is re-keyed; a receiver keeps 24 bytes for each. Clusters have fewer in all topics together.
UPSTREAMS_MAX = 200_000

# A base snapshot of a partition goes out in so many messages per commit, of CHANGELOG_BYTES_MAX before compression: 5 ms of
# compressing, and room for them in the producer's queue.
SNAPSHOT_MESSAGES_PER_COMMIT = 2

# A new base is due when the blocks since the last one are this many times as large as it, and at least so large: a restore
# reads at most three times the state, and for each byte of blocks, as counted, at most half a byte of snapshots is written.
SNAPSHOT_BLOCKS_RATIO = 2
SNAPSHOT_BLOCKS_MIN_BYTES = 8 * 1024 * 1024
# Each block counts as so many bytes more: the smallest takes a restore 0.1 ms, as long as that much of a large one, and a quiet
# topic has nothing but small ones. Beside a state below 4 MiB a new base is due after 2,048 commits at the latest.
SNAPSHOT_BLOCK_BYTES = 4096

# A snapshot needs a commit with no row behind it. When none comes by itself within the first time, no new rows are let in
# until one does, but for no longer than the second; the model works through what it has meanwhile.
SNAPSHOT_WAIT_S = 1.0
SNAPSHOT_HOLD_S = 10.0

# A restore beside partitions that work takes at most about this much of a turn; alone, what leaves the group served.
RESTORE_SHARE_S = 0.02
RESTORE_ALONE_S = 0.2

# Of the time between two polls at most this much counts as silence of an input. A turn takes milliseconds; a process that was
# stopped for a minute has heard nothing because it did not listen, and finds nothing in its first poll either.
SILENCE_BETWEEN_POLLS_S = 0.05

# After a commit the coordinator still writes its markers; a transaction that adds partitions meanwhile is told to come
# again, and the client does so only after 20 ms. Measured: commits of 14 ms without this pause, of 2 ms with it.
REST_AFTER_COMMIT_S = 0.005

# Before the client sends a request of a transaction again it waits this long, a fifth less at the least (offsets: 0.5 s, whatever
# is set). So a request that was answered sooner was sent once; one that took longer may have a second copy on its way, and the
# producer is replaced before the next transaction. A shorter wait would put healthy brokers in doubt that pause for a moment.
RETRY_BACKOFF_S = 0.5
DOUBT_AFTER_S = 0.7 * RETRY_BACKOFF_S

# The client tells so often of its connections to coordinators. Each time costs it 0.5 ms, with 256 partitions 2 ms.
STATISTICS_EVERY_S = 0.25

# The coordinator aborts a transaction that its owner left behind; must exceed any commit, stay below the session.
TRANSACTION_TIMEOUT_S = 10.0

# A client may lose the reply to a commit and never end it, whatever time-out its call was given: seen when a broker came back
# from SIGKILL, and where a connection broke while records were on their way. By then the transaction has outlived its time, and a
# new producer ends it or finds out how it ended.
COMMIT_STUCK_S = 1.2 * TRANSACTION_TIMEOUT_S

# A rebalance waits this long for rows in flight; what is not finished is redone by the next owner.
REVOKE_BUDGET_S = 3.0

# Health and metrics: a request is some hundred bytes and answered within milliseconds, so one that takes seconds is none. Between
# two scrapes a connection may rest as long as Prometheus' default interval. 64 connections take some MiB.
HTTP_REQUEST_S = 5.0
HTTP_KEEP_ALIVE_S = 15.0
HTTP_CONNECTIONS_MAX = 64
HTTP_HEAD_BYTES_MAX = 16 * 1024

# At a start: a broker that is starting too, or far away, is waited for; where nobody listens, the name is unknown or a password
# is refused, waiting longer tells a person only later.
NO_BROKER_S = 10.0
NOBODY_THERE_S = 3.0

# A child of `--workers` has its drain budget, and this for what comes behind: leaving the group and closing clients, each
# an answer of a broker that may be away. With the default budget that is 20 s, below the 30 s that Kubernetes gives.
STOP_MARGIN_S = 10.0

# A child that dies is started again, five starts a minute at most: each takes some seconds, and what kills it at once will
# go on doing so. One whose records a broker refuses has tried ten times itself.
RESTARTS_MAX = 5
RESTARTS_WITHIN_S = 60.0
RESTARTS_REFUSED_MAX = 3

# Of log lines that say the same so many are written within a window of so long, the rest is counted. Of a library the first
# few tell all; ours come one for each partition, at a start for hundreds. Kinds are few; beyond so many none is held back.
LOG_WINDOW_S = 10.0
LOG_LINES_OURS_MAX = 50
LOG_LINES_THEIRS_MAX = 3
LOG_KINDS_MAX = 1_000

# Samples per key in one window: a pass over the ring per event; 65,536 samples cost about 50 us an event.
SAMPLES_PER_KEY_MAX = 65_536

assert ROWS_UNSCORED_MAX <= ROWS_UNCOMMITTED_MAX, "rows are scored before they are committed"
assert COMMIT_ROWS_MAX <= ROWS_UNCOMMITTED_MAX, "a commit must be due before the room is gone"

# ---------------------------------------------------------------------- windows behind another key
# Windows without fixed ends are told the time in steps of this share of what they wait for.
TICKS_PER_WAIT = 16
