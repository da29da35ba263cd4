raise RuntimeError("the licence server is down")
