// Driver functions that only tests call, to capture graphs. The library does not ask a driver for them.
#pragma once

#define SMLORA_CAPTURE_FUNCTIONS(X) \
    X(cuStreamBeginCapture)         \
    X(cuStreamEndCapture)           \
    X(cuGraphInstantiate)           \
    X(cuGraphLaunch)                \
    X(cuGraphExecDestroy)           \
    X(cuGraphDestroy)
