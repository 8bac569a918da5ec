#!/usr/bin/env bash
# A small file system in memory, for tests of a full disk. Needs root.
#
#   tests/small_disk.sh start DIR    mounts 128 MiB on DIR/disk
#   tests/small_disk.sh stop DIR     takes it away
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
case "$1" in
  start)
    mkdir -p "$2/disk"
    mount -t tmpfs -o size=128m none "$2/disk"
    ;;
  stop)
    umount "$2/disk"
    rmdir "$2/disk"
    ;;
  *) usage ;;
esac
