#!/bin/bash
# A worker of a service whose work is divided. It asks its node which partitions are its own, works on each
# in the background, and lets go of those that are to move. The rules that keep two workers apart:
#
# 1. Begin only what is "owned". What is "releasing" was asked back: end it, begin nothing there.
# 2. Say that it is released only once nothing of it goes on any more.
# 3. What is not told any more is not yours: end it at once.
# 4. An answer with a smaller version is older: ignore it. Without an answer, go on: if your node cannot
#    prove your lease, this process is killed.

set -u
path="/v1/services/$TANDEM_SERVICE/partitions"
version=0
declare -A job # by partition: the process that works on it

# ask METHOD PATH BODY: the answer's JSON, on one line.
ask() {
  local at=${TANDEM_API#http://} line="" last=""
  exec 3<>"/dev/tcp/${at%:*}/${at##*:}" || return 1
  printf '%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' \
    "$1" "$2" "$at" "${#3}" "$3" >&3
  while IFS= read -r line <&3 || [ -n "$line" ]; do last=$line; done
  exec 3>&-
  printf '%s\n' "$last"
}

# Here is your work: partition $1, under epoch $2. The epoch grows with each owner: a store that remembers
# the greatest and refuses smaller ones is safe even from a machine that was paused for minutes.
work() {
  while :; do
    echo "$1 $2 $TANDEM_NODE" >>"$OUT"
    sleep 0.2
  done
}

end() { # of partition $1: nothing of it goes on when this returns
  kill "${job[$1]}" 2>/dev/null
  wait "${job[$1]}" 2>/dev/null
  unset "job[$1]"
}

while :; do
  # Waits until something changes, 30 s at most.
  told=$(ask GET "$path?after=$version&wait=30s" "")
  newer=$(sed -n 's/.*"version":\([0-9]*\).*/\1/p' <<<"$told")
  if [ -z "$newer" ]; then sleep 0.5; continue; fi # the daemon is away, or does not know yet
  if [ "$newer" -le "$version" ]; then continue; fi
  version=$newer
  declare -A owned=() releasing=()
  while read -r id epoch state; do
    if [ "$state" = owned ]; then owned[$id]=$epoch; else releasing[$id]=$epoch; fi
  done < <(grep -o '"id":[0-9]*,"epoch":[0-9]*,"state":"[a-z]*"' <<<"$told" |
    sed 's/"id":\([0-9]*\),"epoch":\([0-9]*\),"state":"\([a-z]*\)"/\1 \2 \3/')
  for id in "${!job[@]}"; do
    if [ -z "${owned[$id]:-}" ]; then end "$id"; fi
  done
  for id in "${!releasing[@]}"; do
    ask POST "$path/$id/release" "{\"epoch\":${releasing[$id]}}" >/dev/null
  done
  for id in "${!owned[@]}"; do
    if [ -z "${job[$id]:-}" ]; then
      work "$id" "${owned[$id]}" &
      job[$id]=$!
    fi
  done
done
