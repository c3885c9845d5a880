#!/bin/sh
# Runs a job again and again, as cron would, but on one node of the cluster at a time:
#
#   EVERY=86400 AT=7200 scheduler.sh PROGRAM [ARGUMENT...]
#
# every EVERY seconds, AT seconds after midnight UTC. Nothing of it is remembered: Tandem sees to it that it runs on
# one node alone, and all nodes count time from the same moment. So no run comes twice. One that fell into a
# move or an outage does not come later; a job that must not be missed notes what it did where all nodes see it.
#
# The job is told which run it is: BEAT grows by one with each, wherever it runs.

set -u
beat() { echo $((($(date +%s) - ${AT:-0}) / EVERY)); }

BEAT=$(beat) # this one may have been another node's
export BEAT
while :; do
  now=$(($(date +%s) - ${AT:-0}))
  sleep $((EVERY - now % EVERY))
  next=$(beat)
  if [ "$next" -le "$BEAT" ]; then continue; fi # the clock was set back, or the sleep was short
  BEAT=$next
  "$@" || echo "run $BEAT failed with $?" >&2
done
