#!/usr/bin/env bash
# A real Apache Kafka of one node (KRaft) for tests.
#
#   tests/kafka.sh start DIR    fetches the jars once, formats storage in DIR, starts, waits until it
#                               answers, and writes DIR/address (host:port) and DIR/pid
#   tests/kafka.sh stop DIR     ends the process that DIR/pid names
#
# The jars come from Maven Central into ~/.cache/strandline-kafka-VERSION (STRANDLINE_KAFKA_JARS names another folder).
set -euo pipefail

version=4.1.0
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
action="$1"
mkdir -p "$2"
folder="$(cd "$2" && pwd)"
jars="${STRANDLINE_KAFKA_JARS:-$HOME/.cache/strandline-kafka-$version}"

fetch() {
  [ -e "$jars/.complete" ] && return
  mkdir -p "$jars"
  cat >"$folder/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>strandline</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$folder/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars"
  touch "$jars/.complete"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
  fetch
  local broker controller
  broker="$(free_port)"
  controller="$(free_port)"
  cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$broker,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$broker
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$folder/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
PROPERTIES
  local class_path="$jars/*"
  local cluster
  cluster="$(java -cp "$class_path" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -n 1)"
  java -cp "$class_path" kafka.tools.StorageTool format -t "$cluster" -c "$folder/server.properties" >"$folder/format.out" 2>&1 ||
    { cat "$folder/format.out" >&2; exit 1; }
  nohup java -Xmx512m -cp "$class_path" kafka.Kafka "$folder/server.properties" >"$folder/kafka.out" 2>&1 &
  echo $! >"$folder/pid"
  for _ in $(seq 1 120); do
    if grep -q "Kafka Server started" "$folder/kafka.out"; then
      echo "127.0.0.1:$broker" >"$folder/address"
      echo "Kafka $version at 127.0.0.1:$broker"
      return
    fi
    kill -0 "$(cat "$folder/pid")" 2>/dev/null || break
    sleep 1
  done
  tail -n 30 "$folder/kafka.out" >&2
  echo "Kafka did not start" >&2
  exit 1
}

stop() {
  [ -e "$folder/pid" ] || return 0
  local pid
  pid="$(cat "$folder/pid")"
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 1 30); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 1
  done
  kill -9 "$pid" 2>/dev/null || true
}

case "$action" in
  start) start ;;
  stop) stop ;;
  *) usage ;;
esac
