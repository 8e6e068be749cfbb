#!/bin/sh
# Outlives the launcher by a moment: reads its notes on stdin, and when stdin ends without a goodbye (the launcher was
# killed) stops what it left. Services go first, so that they can still commit; the broker and the registry last.
#   service PID | stack PID | gone PID | folder PATH | bye
services=''
stack=''
folder=''
without() {
  kept=''
  for p in $1; do [ "$p" = "$2" ] || kept="$kept $p"; done
  echo "$kept"
}
end() {
  [ -n "$1" ] || return 0
  # shellcheck disable=SC2086
  kill -TERM $1 2>/dev/null
  left=$2
  while [ "$left" -gt 0 ]; do
    alive=''
    for p in $1; do
      state=$(ps -o stat= -p "$p" 2>/dev/null)
      case "$state" in '' | Z*) ;; *) alive=1 ;; esac
    done
    [ -n "$alive" ] || return 0
    sleep 1
    left=$((left - 1))
  done
  # shellcheck disable=SC2086
  kill -KILL $1 2>/dev/null
}
trap '' INT TERM HUP
while read -r word rest; do
  case "$word" in
    service) services="$services $rest" ;;
    stack) stack="$stack $rest" ;;
    gone) services=$(without "$services" "$rest"); stack=$(without "$stack" "$rest") ;;
    folder) folder=$rest ;;
    bye) exit 0 ;;
  esac
done
end "$services" 10
end "$stack" 20
case "$folder" in */onemall-test-*) rm -rf -- "$folder" ;; esac
