#include "bench.h"
#include <string.h>
struct body { long double x[3], v[3], mass; };
uint64_t run_x87(uint64_t units)
{
    enum { BODIES = 5 };
    struct body all[BODIES];
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            all[i].x[k] = (i * 3 + k * 5) % 7 * 1.25 + i;
            all[i].v[k] = ((i + k) % 3 - 1) * 0.125;
        }
        all[i].mass = 1.0L / (i + 1);
    }
    uint64_t sum = 0;
    for (uint64_t u = 0; u < units; u++) {
        for (int turn = 0; turn < 100; turn++) {
            const double dt = 0.001;
            for (int i = 0; i < BODIES; i++) {
                for (int j = i + 1; j < BODIES; j++) {
                    long double d[3], square = 0;
                    for (int k = 0; k < 3; k++) {
                        d[k] = all[i].x[k] - all[j].x[k];
                        square += d[k] * d[k];
                    }
                    long double pull = dt / (square * __builtin_sqrtl(square));
                    for (int k = 0; k < 3; k++) {
                        all[i].v[k] -= d[k] * all[j].mass * pull;
                        all[j].v[k] += d[k] * all[i].mass * pull;
                    }
                }
            }
            for (int i = 0; i < BODIES; i++)
                for (int k = 0; k < 3; k++)
                    all[i].x[k] += dt * all[i].v[k];
        }
        double r = (double)all[u % BODIES].x[u % 3]; uint64_t b; memcpy(&b,&r,8);
        sum = bench_mix(sum, b);
    }
    return sum;
}
// doubles by x87 as 32-bit code has them
__attribute__((target("fpmath=387"),noinline)) uint64_t run_x87d(uint64_t units)
{
    double a[64]; for (int i=0;i<64;i++) a[i]=i*1.5+1;
    uint64_t sum=0;
    for (uint64_t u=0;u<units;u++){
        double s=0;
        for(int t=0;t<200;t++) for(int i=0;i<63;i++){ a[i]=a[i]*0.5+a[i+1]*0.25; s+=a[i]; }
        uint64_t b; memcpy(&b,&s,8); sum=bench_mix(sum,b);
    }
    return sum;
}
#include <mmintrin.h>
uint64_t run_mmx(uint64_t units)
{
    static uint64_t buf[512]; uint64_t sum=0;
    for(int i=0;i<512;i++) buf[i]=i*0x9e3779b97f4a7c15ull;
    for(uint64_t u=0;u<units;u++){
        for(int t=0;t<20;t++){
        for(int i=0;i<510;i++){
            uint64_t r;
            __asm__ volatile("movq %1,%%mm0; movq %2,%%mm1; paddb %%mm1,%%mm0; movq %%mm0,%%mm2; pmullw %%mm1,%%mm2; pxor %%mm2,%%mm0; punpcklbw %%mm1,%%mm2; packuswb %%mm0,%%mm2; paddusw %%mm2,%%mm0; movq %%mm0,%0":"=m"(r):"m"(buf[i]),"m"(buf[i+1]):"mm0","mm1","mm2");
            buf[i]=r;
        } __asm__ volatile("emms":::"memory"); }
        sum=bench_mix(sum,buf[u%512]);
    }
    return sum;
}
