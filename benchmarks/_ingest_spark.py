"""One measurement of Spark Structured Streaming, in a process of its own; prints a JSON line.

Arguments: Kafka's address, topic, folder, events a trigger, events in all, jars. The same schema, the same Kafka
coordinates in the rows; broken messages become rows of nulls, where ours are quarantined with reasons.
"""

import json
import os
import sys
import time
from datetime import datetime

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json, to_timestamp
from pyspark.sql.types import DoubleType, StringType, StructField, StructType


def main(address: str, topic: str, folder: str, batch: int, events: int, jars: str) -> dict[str, float]:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", jars)
        .config("spark.driver.memory", "4g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.streaming.numRecentProgressUpdates", "10000")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    numbers = {"latitude", "longitude", "speed"}
    names = ("vehicle_id", "timestamp", "latitude", "longitude", "speed", "trip_id")
    schema = StructType([StructField(n, DoubleType() if n in numbers else StringType()) for n in names])
    raw = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", address)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", batch)
        .load()
    )
    parsed = raw.select(
        from_json(col("value").cast("string"), schema).alias("e"),
        "partition",
        "offset",
        col("timestamp").alias("arrived"),
    )
    rows = parsed.select("e.*", "partition", "offset", "arrived").withColumn("timestamp", to_timestamp("timestamp"))
    query = (
        rows.writeStream.format("delta").option("checkpointLocation", f"{folder}/checkpoint").start(f"{folder}/table")
    )
    while sum(p["numInputRows"] for p in query.recentProgress) < events:
        if query.exception() is not None:
            raise SystemExit(str(query.exception()))
        time.sleep(0.2)
    progress = [p for p in query.recentProgress if p["numInputRows"]]
    query.stop()
    spark.stop()
    done, first, last = 0, _end(progress[0]), _end(progress[0])
    for entry in progress[1:]:
        done, last = done + entry["numInputRows"], _end(entry)
    return {"events_per_second": done / (last - first), "peak_mb": 0.0, "batches": len(progress)}


def _end(progress: dict) -> float:
    began = datetime.fromisoformat(progress["timestamp"].replace("Z", "+00:00")).timestamp()
    return began + progress["durationMs"]["triggerExecution"] / 1000


if __name__ == "__main__":
    a = sys.argv
    print(json.dumps(main(a[1], a[2], a[3], int(a[4]), int(a[5]), a[6])))
