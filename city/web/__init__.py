"""The parts that every route needs: access control, limits, problem responses, pages, metrics."""
