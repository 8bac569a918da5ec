#!/usr/bin/env bash
# A real Apache Kafka (KRaft) for tests: one node, or a cluster of two small brokers with a controller of its own.
#
#   tests/kafka.sh start DIR             fetches the jars once, formats storage in DIR, starts one node, waits until it
#                                        answers, and writes DIR/address (host:port) and DIR/pid. It also listens with
#                                        TLS and SCRAM-SHA-512: DIR/secure has the address of that, user, password,
#                                        ca.pem, and stranger.pem, the certificate of somebody else
#   tests/kafka.sh start-two DIR         two brokers, with DIR/address for whoever is always to reach them. Each broker
#                                        tells others to come to a port that nobody listens at: DIR/1/relay and DIR/2/relay
#                                        hold that address and the one at which the broker does listen, for a relay between
#   tests/kafka.sh restart DIR NODE      starts broker 1 or 2 again, over its data, after it was killed
#   tests/kafka.sh lead DIR TOPIC PARTITIONS NODE
#                                        moves the leaders of a topic's partitions to broker 1 or 2
#   tests/kafka.sh stop DIR              ends what was started in DIR
#
# The jars come from Maven Central into ~/.cache/strandline-kafka-VERSION (STRANDLINE_KAFKA_JARS names another folder).
set -euo pipefail

version=4.1.0
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
action="$1"
mkdir -p "$2"
folder="$(cd "$2" && pwd)"
shift 2
jars="${STRANDLINE_KAFKA_JARS:-$HOME/.cache/strandline-kafka-$version}"
class_path="$jars/*"

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

# Makes what the listener with TLS and SCRAM needs: a key store with a certificate for 127.0.0.1, and what clients are told.
secure() {
  local secret="$1/secure" options
  rm -rf "$secret"
  (umask 077 && mkdir "$secret")
  python3 -c 'import secrets; print(secrets.token_hex(16))' >"$secret/password"
  echo strandline >"$secret/user"
  options=(-storetype PKCS12 -storepass "$(cat "$secret/password")" -noprompt)
  make_key() {
    keytool -genkeypair "${options[@]}" -keyalg EC -groupname secp256r1 -validity 30 "$@" >>"$secret/keytool.out" 2>&1 ||
      { cat "$secret/keytool.out" >&2; exit 1; }
  }
  make_key -keystore "$secret/keys.p12" -alias ca -dname CN=ca -ext bc:c
  make_key -keystore "$secret/keys.p12" -alias broker -dname CN=broker -signer ca -ext san=ip:127.0.0.1
  make_key -keystore "$secret/stranger.p12" -alias ca -dname CN=stranger -ext bc:c
  keytool -exportcert -rfc "${options[@]}" -keystore "$secret/keys.p12" -alias ca >"$secret/ca.pem" 2>>"$secret/keytool.out"
  keytool -exportcert -rfc "${options[@]}" -keystore "$secret/stranger.p12" -alias ca >"$secret/stranger.pem" 2>>"$secret/keytool.out"
  # The broker shows the certificate of the one key that is left.
  keytool -delete "${options[@]}" -keystore "$secret/keys.p12" -alias ca >>"$secret/keytool.out" 2>&1
}

# Formats the storage of nodes, each a folder with its server.properties, for users who may log in (name=..,password=..).
format() {
  local cluster node users=()
  if [ "$1" = --user ]; then
    users=(--add-scram "SCRAM-SHA-512=[$2]")
    shift 2
  fi
  cluster="$(java -cp "$class_path" kafka.tools.StorageTool random-uuid 2>/dev/null | tail -n 1)"
  for node in "$@"; do
    java -cp "$class_path" kafka.tools.StorageTool format -t "$cluster" -c "$node/server.properties" ${users[@]+"${users[@]}"} >"$node/format.out" 2>&1 ||
      { cat "$node/format.out" >&2; exit 1; }
  done
}

# Starts the node of a folder, with these options of java.
launch() {
  local node="$1"
  shift
  nohup java "$@" -cp "$class_path" kafka.Kafka "$node/server.properties" >"$node/kafka.out" 2>&1 </dev/null &
  echo $! >"$node/pid"
}

# Waits until the node of a folder answers.
await() {
  local node="$1"
  for _ in $(seq 1 240); do
    grep -q "Kafka Server started" "$node/kafka.out" && return
    kill -0 "$(cat "$node/pid")" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 30 "$node/kafka.out" >&2
  echo "Kafka did not start" >&2
  exit 1
}

start() {
  fetch
  local broker tls controller password
  broker="$(free_port)"
  tls="$(free_port)"
  controller="$(free_port)"
  secure "$folder"
  password="$(cat "$folder/secure/password")"
  cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$broker,SECURE://127.0.0.1:$tls,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$broker,SECURE://127.0.0.1:$tls
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PKCS12
listener.name.secure.ssl.keystore.location=$folder/secure/keys.p12
listener.name.secure.ssl.keystore.password=$password
log.dirs=$folder/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
PROPERTIES
  format --user "name=$(cat "$folder/secure/user"),password=$password" "$folder"
  launch "$folder" -Xmx512m
  await "$folder"
  echo "127.0.0.1:$tls" >"$folder/secure/address"
  echo "127.0.0.1:$broker" >"$folder/address"
  echo "Kafka $version at 127.0.0.1:$broker, with TLS and SCRAM at 127.0.0.1:$tls"
}

small=(-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1)

# A broker that does not answer is given up after three seconds, and so is a replica that falls behind. Leaders
# stay where they are put.
start_two() {
  fetch
  local controller number inside listens relay inside_all=""
  controller="$(free_port)"
  mkdir -p "$folder/controller" "$folder/1" "$folder/2"
  local common="controller.quorum.voters=100@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.leader.rebalance.enable=false
offsets.topic.replication.factor=2
min.insync.replicas=1
auto.create.topics.enable=false"
  cat >"$folder/controller/server.properties" <<PROPERTIES
$common
process.roles=controller
node.id=100
listeners=CONTROLLER://127.0.0.1:$controller
log.dirs=$folder/controller/log
PROPERTIES
  for number in 1 2; do
    inside="$(free_port)"
    listens="$(free_port)"
    relay="$(free_port)"
    inside_all+="${inside_all:+,}127.0.0.1:$inside"
    echo "127.0.0.1:$relay 127.0.0.1:$listens" >"$folder/$number/relay"
    cat >"$folder/$number/server.properties" <<PROPERTIES
$common
process.roles=broker
node.id=$number
listeners=INSIDE://127.0.0.1:$inside,OUTSIDE://127.0.0.1:$listens
advertised.listeners=INSIDE://127.0.0.1:$inside,OUTSIDE://127.0.0.1:$relay
inter.broker.listener.name=INSIDE
log.dirs=$folder/$number/log
replica.lag.time.max.ms=3000
log.cleaner.dedupe.buffer.size=10485760
num.network.threads=2
num.io.threads=4
PROPERTIES
  done
  format "$folder/controller" "$folder/1" "$folder/2"
  for node in controller 1 2; do
    launch "$folder/$node" "${small[@]}"
  done
  for node in controller 1 2; do
    await "$folder/$node"
  done
  echo "$inside_all" >"$folder/address"
  echo "Kafka $version, two brokers, at $inside_all"
}

restart() {
  launch "$folder/$1" "${small[@]}"
  await "$folder/$1"
}

lead() {
  local topic="$1" partitions="$2" first="$3" partition list=""
  for partition in $(seq 0 $((partitions - 1))); do
    list+="${list:+,}{\"topic\":\"$topic\",\"partition\":$partition,\"replicas\":[$first,$((3 - first))]}"
  done
  echo "{\"version\":1,\"partitions\":[$list]}" >"$folder/lead.json"
  local address
  address="$(cat "$folder/address")"
  java "${small[@]}" -cp "$class_path" org.apache.kafka.tools.reassign.ReassignPartitionsCommand \
    --bootstrap-server "$address" --reassignment-json-file "$folder/lead.json" --execute >"$folder/lead.out" 2>&1 ||
    { cat "$folder/lead.out" >&2; exit 1; }
  java "${small[@]}" -cp "$class_path" org.apache.kafka.tools.LeaderElectionCommand \
    --bootstrap-server "$address" --election-type preferred --all-topic-partitions >"$folder/lead.out" 2>&1 ||
    { cat "$folder/lead.out" >&2; exit 1; }
}

stop() {
  local file pid
  for file in "$folder/pid" "$folder"/[12]/pid "$folder/controller/pid"; do
    [ -e "$file" ] || continue
    pid="$(cat "$file")"
    # One that is frozen hears nothing else.
    kill -CONT "$pid" 2>/dev/null || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 1 60); do
      kill -0 "$pid" 2>/dev/null || continue 2
      sleep 0.5
    done
    kill -9 "$pid" 2>/dev/null || true
  done
}

case "$action:$#" in
  start:0) start ;;
  start-two:0) start_two ;;
  restart:1) restart "$@" ;;
  lead:3) lead "$@" ;;
  stop:0) stop ;;
  *) usage ;;
esac
