/* A stand-in for libedgetpu: lists made-up Edge TPUs, and is a working TFLite delegate that misbehaves on demand.

   It claims the last operator of an int8 model, QUANTIZE from int8 to uint8, and computes it. What it does besides is
   read, at every call, from the file that the environment variable STAND_IN names: "refuse" (creation fails), "freeze"
   (creation never returns), "fail", "hang", "crash", "wrong" (invoking). An option "refuse" makes creation fail too, and
   "idle" makes it claim no operator. DEVICES is how many Edge TPUs it lists; the structures are the beginnings of those
   in TensorFlow Lite's c/common.h, whose order never changes. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, ERROR = 1, UINT8 = 3, INT8 = 9, QUANTIZE = 114 };

typedef struct { int size; int data[]; } Ints;
typedef struct Context Context;
typedef struct Delegate Delegate;

typedef struct {
  int type;
  void *data;
  Ints *dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  Delegate *delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  struct { int type; void *params; } quantization;
  void *sparsity;
  const Ints *dims_signature;
} Tensor;

typedef struct { Ints *inputs, *outputs; } Node;

typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *external;
  void *(*async_kernel)(Context *, Node *);
  uint64_t inplace_operator;
} Registration;

struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context *, Ints **);
  Tensor *tensors;
  void *impl;
  int (*ResizeTensor)(Context *, Tensor *, Ints *);
  void (*ReportError)(Context *, const char *, ...);
  int (*AddTensors)(Context *, int, int *);
  int (*GetNodeAndRegistration)(Context *, int, Node **, Registration **);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(Context *, Registration, const Ints *, Delegate *);
};

struct Delegate {
  void *data;
  int (*Prepare)(Context *, Delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *opaque;
};

static bool told(const char *word) {
  char text[32] = "";
  const char *path = getenv("STAND_IN");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return false;
  if (!fgets(text, sizeof text, file)) text[0] = 0;
  fclose(file);
  return strncmp(text, word, strlen(word)) == 0;
}

static int compute(Context *context, Node *node) {
  if (told("fail")) {
    context->ReportError(context, "the stand-in was told to fail");
    return ERROR;
  }
  if (told("crash")) abort();
  while (told("hang")) usleep(10000);
  const Tensor *in = &context->tensors[node->inputs->data[0]];
  const Tensor *out = &context->tensors[node->outputs->data[0]];
  for (size_t i = 0; i < out->bytes; i++)
    ((uint8_t *)out->data)[i] = told("wrong") ? (uint8_t)(i == 0 ? 255 : 0) : ((uint8_t *)in->data)[i] ^ 0x80;
  return OK;
}

static int claim(Context *context, Delegate *self) {
  Ints *plan;
  if (context->GetExecutionPlan(context, &plan) != OK) return ERROR;
  int last = plan->data[plan->size - 1];
  Node *node;
  Registration *found;
  if (context->GetNodeAndRegistration(context, last, &node, &found) != OK) return ERROR;
  if (found->builtin_code != QUANTIZE || context->tensors[node->inputs->data[0]].type != INT8 ||
      context->tensors[node->outputs->data[0]].type != UINT8)
    return ERROR;
  Registration ours = {.invoke = compute, .custom_name = "StandIn", .version = 1};
  Ints *claimed = malloc(sizeof *claimed + sizeof(int));
  claimed->size = 1;
  claimed->data[0] = last;
  int status = context->ReplaceNodeSubsetsWithDelegateKernels(context, ours, claimed, self);
  free(claimed);
  return status;
}

static int claim_nothing(Context *context, Delegate *self) { return (void)context, (void)self, OK; }

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  bool idle = false, refuse = told("refuse");
  for (size_t i = 0; i < count; i++) {
    idle = idle || strcmp(keys[i], "idle") == 0;
    refuse = refuse || strcmp(keys[i], "refuse") == 0;
    if (strcmp(keys[i], "say") == 0) report(values[i]);
  }
  while (told("freeze")) usleep(10000);
  if (refuse) return NULL;
  Delegate *made = calloc(1, sizeof *made);
  made->Prepare = idle ? claim_nothing : claim;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate *made) { free(made); }

#ifndef NO_EDGE_TPU
#ifndef DEVICES
#define DEVICES 1
#endif
struct edgetpu_device { int type; const char *path; };
static int held = 0;
const char *edgetpu_version(void) { return "BuildLabel(stand-in), RuntimeVersion(14)"; }
struct edgetpu_device *edgetpu_list_devices(size_t *count) {
  static const char *paths[] = {"/sys/bus/usb/devices/1-2", "/dev/apex_0", "/sys/bus/usb/devices/2-1"};
  *count = DEVICES;
  if (!DEVICES) return NULL;
  struct edgetpu_device *found = calloc(DEVICES + 1, sizeof *found);
  for (size_t i = 0; i < DEVICES; i++) {
    found[i].type = i != 1; /* USB, PCIe, USB */
    found[i].path = paths[i];
  }
  held++;
  return found;
}
void edgetpu_free_devices(struct edgetpu_device *found) { held--; free(found); }
int edgetpu_held(void) { return held; }
#endif
