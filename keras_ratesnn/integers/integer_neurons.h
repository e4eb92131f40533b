// One time step of a layer of integer neurons. A call after CONFIG_T::timesteps others begins a new sequence.
#ifndef INTEGER_NEURONS_H_
#define INTEGER_NEURONS_H_

#include "nnet_common.h"

namespace nnet {

template <typename CONFIG_T>
typename CONFIG_T::wide_t after_reset(typename CONFIG_T::wide_t v, typename CONFIG_T::wide_t s,
                                      typename CONFIG_T::wide_t threshold, typename CONFIG_T::wide_t reset) {
    #pragma HLS INLINE
    if (!CONFIG_T::hard)
        return v - s * threshold;
    return s > 0 ? reset : v;
}

template <class data_T, class res_T, typename CONFIG_T>
void integer_neurons(data_T current[CONFIG_T::n], res_T spikes[CONFIG_T::n],
                     typename CONFIG_T::threshold_t threshold[CONFIG_T::n], typename CONFIG_T::bias_t bias[CONFIG_T::n],
                     typename CONFIG_T::decay_t decay[CONFIG_T::n], typename CONFIG_T::v0_t v0[CONFIG_T::n],
                     typename CONFIG_T::reset_t reset[CONFIG_T::n]) {
    #pragma HLS PIPELINE
    static unsigned t = 0;
    static typename CONFIG_T::membrane_t membrane[CONFIG_T::n];
    static res_T spiked[CONFIG_T::n];
    #pragma HLS ARRAY_PARTITION variable=membrane complete
    #pragma HLS ARRAY_PARTITION variable=spiked complete
    for (unsigned i = 0; i < CONFIG_T::n; i++) {
        #pragma HLS UNROLL
        typename CONFIG_T::wide_t v = v0[i], input = current[i];
        if (t > 0)
            v = membrane[i];
        else
            spiked[i] = 0;
        // Right shifts of negative integers round down.
        v = (v * decay[i]) >> CONFIG_T::decay_bits;
        v += (((input << CONFIG_T::left) + CONFIG_T::half) >> CONFIG_T::right) + bias[i];
        if (CONFIG_T::reset_delay)
            v = after_reset<CONFIG_T>(v, spiked[i], threshold[i], reset[i]);
        // Saturates.
        v = typename CONFIG_T::membrane_t(v);
        res_T s = 0;
        if (CONFIG_T::levels == 0)
            s = v >= threshold[i];
        for (int j = 1; j <= CONFIG_T::levels; j++)
            if (2 * v >= (2 * j - 1) * threshold[i] + j % 2) s = j;
        if (!CONFIG_T::reset_delay)
            v = after_reset<CONFIG_T>(v, s, threshold[i], reset[i]);
        membrane[i] = v;
        spikes[i] = spiked[i] = s;
    }
    t = t + 1 == CONFIG_T::timesteps ? 0 : t + 1;
}

} // namespace nnet

#endif
