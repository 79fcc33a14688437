def sentences(recommendations, policy, links=None):
    one = recommendations[policy]
    return [f"STUB {one.epsilon} {one.reason}", str(links)]
