/* bcryptprimitives.dll for a Wine that lacks it (before 9): every Rust program for Windows takes its random numbers from there. */
#include <windows.h>

/* RtlGenRandom, as advapi32.dll exports it. */
BOOLEAN NTAPI SystemFunction036(void *buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(unsigned char *buffer, size_t length) {
    const ULONG most = 1u << 20;
    for (; length > most; buffer += most, length -= most) {
        if (!SystemFunction036(buffer, most)) return FALSE;
    }
    return SystemFunction036(buffer, (ULONG)length);
}
