#!/bin/sh
# The namespace, and for how long closed workflows are kept (support reads them, `mercato replay` replays them).
# Safe to run again. Talks to TEMPORAL_ADDRESS about TEMPORAL_NAMESPACE.
set -eu
namespace() { temporal operator namespace "$@" --namespace "$TEMPORAL_NAMESPACE" --retention 30d; }
namespace update 2>/dev/null && exit
namespace create
# The server notices a new namespace some seconds later, and workers would be turned away until then.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    namespace update 2>/dev/null && exit
    sleep 2
done
exit 1
